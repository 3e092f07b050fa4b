"""The sections of the page: each is listed once and has its partial."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from report_samples import record, small

from leakbench.reports.html import SECTIONS, render

SHARED = {"heading", "threats"}


def headings(text: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', text)


def test_every_section_has_its_partial_and_every_partial_its_section() -> None:
    folder = resources.files("leakbench.reports").joinpath("templates", "sections")
    partials = {path.name.removesuffix(".html.j2") for path in folder.iterdir()}
    assert {section.id for section in SECTIONS} == partials - SHARED
    assert len({section.id for section in SECTIONS}) == len(SECTIONS)


def test_the_page_has_the_sections_in_their_order_and_the_contents_name_them(tmp_path: Path) -> None:
    text = render(small(), tmp_path)
    listed = [section.id for section in SECTIONS]
    shown = headings(text)
    assert shown == [name for name in listed if name in shown]
    contents = text[text.index("<nav") : text.index("</nav>")]
    assert re.findall(r'href="#([\w-]+)"', contents) == shown


def test_a_section_with_nothing_to_show_is_left_out(tmp_path: Path) -> None:
    assert not {"suite", "classes", "findings", "sweeps"} & set(headings(render(record([]), tmp_path)))


def test_the_contents_count_the_flags(tmp_path: Path) -> None:
    text = render(record([]), tmp_path)
    assert re.search(r'<a href="#flags">Flags <span class="count">\d+</span></a>', text)
    assert text.count('class="count"') == 1

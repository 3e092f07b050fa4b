"""The Markdown files: every link leads somewhere, and every measured page says how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md"))
    if path.is_file()
)
RESULTS = sorted(set(ROOT.glob("docs/results/*.md")) - {ROOT / "docs" / "results" / "README.md"})


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Ids that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_dead_links_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](none.md) [b](#one-two) [c](#three) [d](https://example.org)\n```\n[e](none)\n```\n")
    assert list(dead_links(page)) == ["none.md", "#three"]


@pytest.mark.parametrize("page", RESULTS, ids=name)
def test_a_measured_page_says_when_where_and_by_which_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^\d{4}-\d\d-\d\d, LeakBench \d+\.\d+\.\d+, .+; Python [\d.]+, PyTorch \S+, NumPy", text, re.M)
    (script,) = set(re.findall(r"^python (benchmarks/\w+\.py)", text, re.MULTILINE))
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=name)
def test_a_guide_links_to_measured_pages_and_quotes_no_dates(page: Path) -> None:
    """A number that was measured on a day belongs to docs/results."""
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", prose(page))

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from report_samples import calibration, cell, judged, plain, record, share

from leakbench.bench.records import CellRecord
from leakbench.reports.figures import clean, inline, trade_off
from leakbench.reports.summary import groups


def drawn(cells: list[CellRecord]) -> ET.Element:
    (group,) = groups(record(cells))
    return ET.fromstring(trade_off(group))


def defended(name: str, correct: int, successes: int, control: bool = False) -> list[CellRecord]:
    alone = [share("accuracy", correct), plain("energy_ratio_int32", 4.2)]
    attacked = judged(successes, 60.0)
    return [cell(name, values=alone, control=control), cell(name, "a", values=attacked, control=control)]


def words(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter("text")]


def test_each_defence_is_named_with_its_energy_and_the_untrained_network_left_out() -> None:
    rows = [*defended("d", 90, 70), *defended("ann", 95, 72, control=True), *defended("random", 10, 10)]
    svg = drawn([*rows, *calibration()])
    assert {"d · 4.20×", "ann · 4.20×", "real images", "noise images"} <= set(words(svg))
    assert not [text for text in words(svg) if text.startswith("random")]
    spoken = svg.findtext("desc") or ""
    assert "d: accuracy 0.900, worst judge accuracy 0.70, energy ratio 4.20×" in spoken


@pytest.mark.parametrize("count", [1, 2, 12, 40])
@pytest.mark.parametrize("successes", [0, 50, 100])
def test_labels_do_not_lie_on_each_other_or_outside(count: int, successes: int) -> None:
    svg = drawn([c for number in range(count) for c in defended(f"d{number}", 60 + number % 9, successes)])
    _, _, _, height = (float(part) for part in svg.attrib["viewBox"].split())
    heights = []
    for element in svg.iter("text"):
        if (element.text or "").startswith("d"):
            place = element.get("transform", "")
            moved = re.search(r"translate\(([\d.-]+)[ ,]([\d.-]+)\)", place)
            heights.append(float(moved.group(2)) if moved else float(element.attrib["y"]))
    assert len(heights) == count
    assert all(0 < y < height for y in heights)
    # 8.5 points of text
    assert all(after - before >= 8.5 for before, after in itertools.pairwise(sorted(heights)))


def test_without_an_accuracy_or_a_judge_there_is_no_figure() -> None:
    for cells in ([cell("d", values=[share("accuracy", 9)])], [cell("d", "a", values=judged(7, 60.0))]):
        (group,) = groups(record(cells))
        assert trade_off(group) == ""


def test_style_becomes_attributes_and_ids_the_pages_own() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" '
        'viewBox="0 0 9 9"><metadata>who</metadata>'
        '<defs><style>*{}</style><clipPath id="c"/><path id="m"/></defs>'
        '<g id="unused"><use xlink:href="#m" style="fill: #010101; stroke-width: 2"/>'
        '<path clip-path="url(#c)"/><text style="font: 9px \'Sans\'; font-family: Sans">a</text></g></svg>'
    )
    root = ET.fromstring(inline(svg, "fig", "A & B", "<words>"))
    assert root.tag == "svg" and "width" not in root.attrib
    found = {element.tag: element.attrib for element in root.iter()}
    assert found["use"] == {"href": "#fig-1", "fill": "var(--ink)", "stroke-width": "2"}
    assert found["path"] == {"clip-path": "url(#fig-0)"}
    assert found["text"] == {"font-size": "9"}
    assert found["g"] == {}
    assert (root.findtext("title"), root.findtext("desc")) == ("A & B", "<words>")
    assert not [e for e in root.iter() if e.tag in ("metadata", "style") or "style" in e.attrib]


def test_characters_that_xml_forbids_are_replaced() -> None:
    assert clean("a\x00b\x1bc\ufffed\tß漢😀") == "a\ufffdb\ufffdc\ufffdd\tß漢😀"

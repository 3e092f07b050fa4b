from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from compared_runs import attacked, own, run
from report_samples import calibration, cell, index, judged, plain, record, row, share, verdict

from leakbench.bench.comparison import compare
from leakbench.records import AttackRow, CellRecord, RunRecord
from leakbench.reports.drawing import clean, inline
from leakbench.reports.summary import groups
from leakbench.reports.tradeoff import standing, trade_off


def drawn(made: RunRecord) -> ET.Element:
    (group,) = groups(made)
    return ET.fromstring(trade_off(group))


def defended(name: str, correct: int) -> list[CellRecord]:
    control = name in ("ann", "random")
    alone = [share("accuracy", correct), plain("energy_ratio_int32", 4.2)]
    return [
        cell(name, values=alone, control=control),
        cell(name, "a", values=judged(50, 60.0), control=control),
    ]


def leaking(name: str, *values: float | None, **given: str) -> list[AttackRow]:
    return [row(name, attack, index(value), **given) for attack, value in zip("abc", values, strict=False)]


def words(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter("text")]


def test_each_defence_is_named_with_its_energy_and_the_untrained_network_left_out() -> None:
    cells = [*defended("d", 90), *defended("ann", 95), *defended("random", 10), *calibration()]
    rows = [*leaking("ann", 0.2, 0.72), *leaking("random", 0.0), *leaking("d", 0.9)]
    svg = drawn(record(cells, rows=rows, verdicts=[verdict("d", index=index(0.7))]))
    assert {"d · 4.20×", "ann · 4.20×", "real images", "noise images"} <= set(words(svg))
    assert not [text for text in words(svg) if text.startswith("random")]
    spoken = svg.findtext("desc") or ""
    # the verdict's index, whatever the rows say; of a control the highest
    assert "d: accuracy 0.900, leakage index of the worst attack 0.70, energy ratio 4.20×" in spoken
    assert "ann: accuracy 0.950, leakage index of the worst attack 0.72" in spoken


def test_an_attack_that_is_not_valid_is_no_worst_case() -> None:
    rows = [*leaking("ann", 0.9, validity="invalid"), row("ann", "b", index(0.3)), row("ann", "c", index(None))]
    assert "worst attack 0.30" in (drawn(record(defended("ann", 95), rows=rows)).findtext("desc") or "")


def test_several_seeds_are_one_point() -> None:
    cells = [c.model_copy(update={"seed": seed}) for seed, n in ((0, 90), (1, 96)) for c in defended("d", n)]
    svg = drawn(record(cells, verdicts=[verdict("d")]))
    assert "accuracy 0.930" in (svg.findtext("desc") or "")
    assert words(svg).count("d · 4.20×") == 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 12, 40])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_labels_do_not_lie_on_each_other_or_outside(count: int, value: float) -> None:
    names = [f"d{number}" for number in range(count)]
    cells = [c for number, name in enumerate(names) for c in defended(name, 60 + number % 9)]
    svg = drawn(record(cells, verdicts=[verdict(name, index=index(value)) for name in names]))
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


@pytest.mark.parametrize(
    "made",
    [
        record([cell("d", values=[share("accuracy", 9)])]),
        record([cell("d", "a", values=judged(7, 60.0))], verdicts=[verdict("d")]),
        record(defended("d", 90), verdicts=[verdict("d", "inconclusive", index=None)]),
        record(defended("ann", 90), rows=leaking("ann", 0.9, validity="invalid")),
    ],
    ids=["no attack", "no accuracy", "inconclusive", "nothing valid"],
)
def test_without_an_accuracy_or_an_index_there_is_no_figure(made: RunRecord) -> None:
    (group,) = groups(made)
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


def test_a_line_joins_what_no_other_beats_where_defences_differ() -> None:
    def broken_lines(front: bool, without: str = "", **defences: tuple[int, float]) -> int:
        cells = [cell for name, (correct, _) in defences.items() for cell in defended(name, correct)]
        verdicts = [verdict(name, index=index(leak)) for name, (_, leak) in defences.items()]
        (group,) = groups(record(cells, verdicts=verdicts))
        return trade_off(group, defences.keys() - {without}, front).count("dasharray")

    safe, exact, beaten = (80, 0.2), (95, 0.7), (79, 0.8)
    alone = broken_lines(False, safe=safe, exact=exact, beaten=beaten)
    assert broken_lines(True, safe=safe, exact=exact, beaten=beaten) == alone + 1
    assert broken_lines(True, safe=safe, beaten=beaten) == alone  # one point is no line
    # what has no rank leaks an unknown amount, or knows less: it beats nobody
    assert broken_lines(True, "safe", safe=safe, exact=exact) == alone
    assert broken_lines(True, "exact", safe=safe, exact=exact, beaten=(85, 0.3)) == alone + 1


def test_defences_that_do_not_differ_have_no_front_nor_those_that_know_less_a_rank() -> None:
    def found(*scores: list[float], right: int = 194) -> tuple[set[str], bool]:
        cells = [
            c for at, one in enumerate(scores) for c in (own(f"d{at}", right=(194, right)[at]), attacked(f"d{at}", one))
        ]
        made = run(*cells)
        return standing(groups(made)[0], compare({"": made}))

    high, low = [0.9, 0.8, 0.9, 1.0, 0.8, 0.9, 0.7, 0.9, 1.0, 0.8], [0.3, 0.4, 0.2, 0.5, 0.3, 0.2, 0.4, 0.3, 0.5, 0.4]
    assert found(high, low) == ({"d0", "d1"}, True)
    assert found(high, high) == ({"d0", "d1"}, False)
    assert found(high, low, right=60) == ({"d0"}, False)


def test_a_figure_s_description_turns_no_writing_direction() -> None:
    text = inline("<svg viewBox='0 0 1 1'/>", "a", "title \u202e", "of \u202egnorw\x1b[2J")
    assert text.isprintable() and r"of \u202egnorw\x1b[2J" in text

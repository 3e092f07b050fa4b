from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import cell, index, judged, record, row, share, small, verdict

from leakbench.metrics.class_leaks import leaking_classes
from leakbench.metrics.class_votes import Votes
from leakbench.metrics.estimate import proportion
from leakbench.records import BudgetLeak, BudgetPoint, ThreatModel, Value
from leakbench.reports.budget import panels
from leakbench.reports.frames import long_frame, wide_frame
from leakbench.reports.html import render
from leakbench.reports.summary import groups
from leakbench.reports.tables import markdown_text
from leakbench.reports.threats import threat_rows
from leakbench.reports.verdict import cards


def leak(cost: float, value: float, attack: str = "a", half: float | None = 0.1) -> BudgetLeak:
    ends = {} if half is None else {"low": max(0.0, value - half), "high": min(1.0, value + half)}
    return BudgetLeak(cost=cost, attack=attack, value=value, n=10, **ends)


def threat(access: Any, *points: BudgetLeak, half: tuple[float | None, ...] = (), **given: Any) -> ThreatModel:
    fields: dict[str, Any] = {"attack": points[-1].attack, "index": index(points[-1].value)} if points else {}
    if half:
        value, low, high = half
        fields["cost_to_half"] = Value(metric="cost_to_half", value=value, low=low, high=high, n=10)
    if points:
        fields["area"] = Value(metric="area", value=0.31, low=0.2, high=0.44, n=10)
    return ThreatModel(access=access, points=list(points), **(fields | given))


THREATS = [
    threat("LABELS"),
    threat("SCORES", leak(12.5, 0.2, "b"), leak(129.4, 0.55, "b"), half=(129.4, 12.5, None), named=[2]),
    threat("WEIGHTS", leak(3, 0.0), leak(12.5, 0.2, "b"), leak(1300, 0.83), half=(1300, 129.4, 1300), named=[0, 1, 2]),
]


def made(**given: Any) -> Any:
    found = verdict("d", attack="a", threats=THREATS, classes=list(range(10)), **({"networks": 3} | given))
    cells = [cell("d", name, values=judged(50, 60.0)) for name in "ab"]
    return record(cells, verdicts=[found], rows=[row("d", name, index(0.5)) for name in "ab"])


def test_a_card_says_what_each_access_gets() -> None:
    (group,) = groups(made())
    (card,) = cards(group, made())
    assert [one.cells for one in card.threats] == [
        ["weights", "a", "3 of 10", ".83 [.73, .93]", "1,300 [129, 1,300]", ".31 [.20, .44]"],
        ["scores", "b", "1 of 10", ".55 [.45, .65]", "129 [12, –]", ".31 [.20, .44]"],
        ["labels", "–", "–", "no valid attack", "–", "–"],
    ]


def test_classes_that_few_networks_cannot_name_are_not_said_to_be_none() -> None:
    weights, *_ = threat_rows(made(networks=2).verdicts[0], {})
    assert weights.classes == "needs 3 networks"
    nothing = verdict("d", threats=[threat("WEIGHTS", leak(3, 0.1, half=None))], networks=3)
    (only,) = threat_rows(nothing, {})
    assert (only.classes, only.half) == ("none significantly", "not reached")


def test_what_was_not_tested_is_not_said_to_be_none() -> None:
    nothing = verdict("d", threats=[threat("WEIGHTS", leak(3, 0.1))], networks=3)
    failed = row("d", "a", index(0.1)).model_copy(update={"validity": "optimisation failure"})
    (only,) = threat_rows(nothing, {("d", "a"): failed})
    assert only.classes == "unknown: optimisation failure"
    votes = Votes(np.zeros((3, 1, 10, 10), bool), np.ones((3, 1), bool))
    few = leaking_classes(votes, votes)
    (only,) = threat_rows(nothing.model_copy(update={"notes": list(few.notes)}), {})
    assert only.classes == "needs 6 null networks"


def test_each_access_that_was_attacked_has_a_figure_with_a_line_a_defence() -> None:
    (group,) = groups(made())
    weights, scores = panels(group)
    assert (weights.access, scores.access) == ("weights", "scores")
    svg = ET.fromstring(weights.figure)
    words = [one.text for one in svg.iter("text")]
    assert {"d", "real images", "noise images", "1", "10", "100", "1,000", "10,000"} <= set(words)
    assert "d: 0.00 at 3, 0.20 at 12, 0.83 at 1,300." in (svg.findtext("desc") or "")
    assert len(ids := re.findall(r'id="([^"]+)"', weights.figure + scores.figure)) == len(set(ids))


def test_a_curve_is_drawn_as_steps() -> None:
    """Between two costs an attacker has what the lower one gave: the line goes right first, then up."""
    (group,) = groups(made())
    svg = ET.fromstring(panels(group)[0].figure)
    steps = [
        d for one in svg.iter("path") if one.get("stroke") == "var(--fig-line-1)" and len(d := one.get("d", "")) > 60
    ]
    corners = [[float(x) for x in pair] for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", max(steps, key=len))]
    moves = [(b[0] != a[0], b[1] != a[1]) for a, b in pairwise(corners)]
    assert not any(right and up for right, up in moves)


def test_the_page_has_the_section_and_the_tables(tmp_path: Path) -> None:
    text = render(made(), tmp_path)
    assert 'id="budget"' in text and "Attackers with scores" in text
    assert text.count("1,300 [129, 1,300]") == 1
    assert 'id="budget"' not in render(small(), tmp_path)


def test_the_tables_in_markdown() -> None:
    text = markdown_text(made())
    assert "### Leak over the attacker's cost" in text
    assert "| d | scores | b | 1 of 10 | .55 \\[.45, .65\\] | 129 \\[12, –\\] | .31 \\[.20, .44\\] |" in text
    assert "attacker's cost" not in markdown_text(small())


def test_rows_in_the_csv_stand_below_all_others() -> None:
    points = [BudgetPoint(cost=3, images=5, accepted=[1, 0], forced=[5, 2])]
    before = made()
    after = before.model_copy(
        update={"cells": [c.model_copy(update={"budget": points}) if c.attack == "a" else c for c in before.cells]}
    )
    frame = long_frame(after)
    plain = frame[~frame["metric"].str.startswith("budget: ")]
    assert plain.index.tolist() == list(range(len(plain)))
    assert plain["cost"].isna().all() and (plain["access"] == "").all()
    of_cell = frame[(frame["metric"] == "budget: judge_accuracy")]
    (hits,) = of_cell.to_dict("records")
    expected = proportion(7, 10)
    assert (hits["attack"], hits["seed"], hits["cost"], hits["access"]) == ("a", 0, 3, "")
    assert (hits["value"], hits["low"], hits["high"], hits["n"]) == (0.7, expected.low, expected.high, 10)
    curve = frame[(frame["metric"] == "budget: index") & (frame["access"] == "WEIGHTS")]
    assert curve[["cost", "value"]].values.tolist() == [[3, 0.0], [12.5, 0.2], [1300, 0.83]]
    assert curve["attack"].tolist() == ["a", "b", "a"] and curve["seed"].isna().all()
    half = frame[frame["metric"] == "budget: cost_to_half"].set_index("access")["value"]
    assert half.to_dict() == {"SCORES": 129.4, "WEIGHTS": 1300}
    assert set(frame[frame["metric"] == "budget: area"]["access"]) == {"SCORES", "WEIGHTS"}
    wide = wide_frame(after)
    assert not [name for name in wide.columns if "budget" in name or name in ("cost", "access")]
    assert len(wide) == len(wide_frame(before))


@pytest.mark.parametrize("half", [None, 0.1])
def test_curves_without_intervals_are_drawn_too(half: float | None) -> None:
    found = verdict("d", threats=[threat("WEIGHTS", leak(3, 0.1, half=half), leak(30, 0.2))])
    (group,) = groups(record([cell("d", "a", values=[share("judge_accuracy", 5)])], verdicts=[found]))
    (weights,) = panels(group)
    assert ("fill-opacity" in weights.figure or "opacity: 0.1" in weights.figure) == (half is not None)

"""The tables in docs/metrics.md say what the built-in metrics declare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from by_hand import declared

from leakbench.metrics.metric import Declaration

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
HEADINGS = {"inversion": "Leakage of classes", "membership": "Membership", "": "The deployed network and cost"}
DIRECTIONS = {"more": "higher", "less": "lower", "": "–"}


def row(metric: Declaration) -> str:
    unit = f"{metric.unit}, at the same number of images" if metric.needs_same_n else metric.unit
    per = "by class" if metric.per == "class" else "–"
    parts = (f"`{metric.name}`", metric.title, unit, DIRECTIONS[metric.leaks], per, metric.scale or "–", metric.meaning)
    return f"| {' | '.join(parts)} |"


@pytest.mark.parametrize("leakage", HEADINGS)
def test_the_page_has_every_metric_as_it_declares_itself(leakage: str) -> None:
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{HEADINGS[leakage]}\n")]
    expected = [row(metric) for metric in declared().values() if metric.leakage == leakage]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == expected, "docs/metrics.md should have:\n" + "\n".join(expected)

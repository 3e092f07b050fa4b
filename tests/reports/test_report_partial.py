"""Records that lack something, or have much of it, have a whole page and tables all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from realistic_samples import realistic
from report_page import hostile, page
from report_samples import (
    anchor,
    by_class,
    calibration,
    cell,
    index,
    judged,
    plain,
    record,
    row,
    scale,
    share,
    small,
    verdict,
    write,
)

from leakbench.records import (
    Picture,
    RunRecord,
    Value,
)
from leakbench.reports import write_report


def two_hundred(run: Path) -> RunRecord:
    realistic(run)  # draws the picture
    pictures = [Picture(path="images/real/0.png", target=t) for t in range(200)]
    return record([cell("d", "a", values=judged(70, 60.0), pictures=pictures), *calibration()])


def odd_numbers(_: Path) -> RunRecord:
    nan, inf = float("nan"), float("inf")
    values = [
        Value(metric="judge_accuracy", value=nan, low=nan, high=nan, n=5),
        Value(metric="fid", value=inf, low=0, high=inf, n=5),
        Value(metric="kid", value=1e-12, n=5),
        Value(metric="seconds", value=1e12),
    ]
    return record(
        [
            cell(
                "d",
                values=[Value(metric="accuracy", value=nan), Value(metric="energy_ratio_int32", value=inf)],
            ),
            cell("d", "a", values=values),
            cell("d", "b", values=[share("judge_accuracy", 40)]),
            cell("ann", values=[Value(metric="accuracy", value=0.5)]),
            anchor("noise", values=values),
            anchor("real", values=values),
        ]
    )


PARTIAL: dict[str, Callable[[Path], RunRecord]] = {
    "no cells": lambda _: record([]),
    "no cells, interrupted": lambda _: record([], complete=False),
    "anchors alone": lambda _: record(calibration()),
    "no anchors": lambda _: record([cell("d", "a", values=judged(70, 60.0))]),
    "all failed": lambda _: record([cell(d, a, status="failed", reason="x") for d in "de" for a in ("", "a", "b")]),
    "defences alone": lambda _: record([cell("d", values=[share("accuracy", 90)])]),
    "controls alone": lambda _: record([cell("ann", "a", values=judged(70, 60.0), control=True), *calibration()]),
    "no judge accuracy": lambda _: record([cell("d", "a", values=[plain("queries", 3)])]),
    "rows alone": lambda _: record([], rows=small().rows, verdicts=small().verdicts, scales=small().scales),
    "inconclusive": lambda _: record(
        small().cells,
        rows=[row("privatesnn", "inversion", validity="invalid", gates=[], p=None)],
        verdicts=[verdict("privatesnn", "inconclusive", attack="", index=None)],
    ),
    "nothing has a scale": lambda _: record(
        small().cells,
        rows=[row("privatesnn", "inversion", index(None), by_class(None, None, metric="kes"))],
        verdicts=[verdict("privatesnn", index=index(None))],
        scales=[scale(fresh_noise=index(None), fresh_real=index(None))],
    ),
    "two hundred classes": two_hundred,
    "hostile": lambda _: hostile(),
    "odd numbers": odd_numbers,
    "several seeds": lambda _: record(
        [c.model_copy(update={"seed": seed}) for c in small().cells for seed in (0, 1, 2)]
    ),
    "several data sets": lambda _: record(
        [c.model_copy(update={"dataset": name}) for c in small().cells for name in ("x", "y")]
    ),
    "forty defences": lambda _: record(
        [
            c
            for number in range(40)
            for c in (
                cell(f"d{number}", values=[share("accuracy", 50 + number)]),
                cell(f"d{number}", "a", values=judged(70, 60.0)),
            )
        ]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTIAL)
def test_every_record_has_a_whole_page_and_tables(tmp_path: Path, name: str) -> None:
    made = PARTIAL[name](tmp_path)
    page(made, tmp_path)
    if name == "odd numbers":  # JSON has no NaN
        return
    written = write_report(write(tmp_path, made))
    assert written == tmp_path / "report.html"
    assert (tmp_path / "results.csv").read_text(encoding="utf-8").startswith("dataset,model,")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

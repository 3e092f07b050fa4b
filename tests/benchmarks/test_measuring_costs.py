"""The table of measured costs: what is made of its rows, and where rows of an interrupted measurement wait."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from leakbench.bench.costs import Network, Row
from leakbench.bench.speed import Speed


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("costs")


def network(model: str, ann: float) -> Network:
    return Network(machine="abacus", dataset="d", model=model, speed=Speed(ann=ann, spiking=1.0, other=1.0))


def row(network: int, each: float, seconds: float, timesteps: int = 1) -> Row:
    sizes = (1.0, 0.0, each, 0.0, each, 0.0, 0.0)
    return Row(stage="ANN training", network=network, timesteps=timesteps, sizes=sizes, seconds=seconds, memory=1.0)


def test_rows_are_fitted_in_units_of_each_networks_speed(costs: ModuleType) -> None:
    """Twice as fast a network takes half the time: one weight tells both."""
    networks = [network("slow", 2.0), network("fast", 1.0)]
    rows = [row(0, each, 3 * 2 * each) for each in (5.0, 50.0)] + [row(1, each, 3 * each) for each in (5.0, 50.0)]
    table = costs.fit(rows, {}, "by hand", networks, "2026-01-01")
    assert table.within_twice == 1
    assert table.weights["ANN training"] == pytest.approx((0, 0, 3, 0, 0, 0, 0), abs=0.1)


def test_networks_that_no_row_is_of_leave_the_table(costs: ModuleType) -> None:
    networks = [network("gone", 9.0), network("here", 1.0)]
    table = costs.fit([row(1, 10.0, 30.0)], {}, "by hand", networks, "2026-01-01")
    assert [one.model for one in table.networks] == ["here"]
    assert [one.network for one in table.rows] == [0]
    assert table.date == "2026-01-01"
    assert table.slowest.ann == 1.0


def test_a_stage_that_is_measured_alone_leaves_an_interrupted_measurement_of_all(
    costs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, alone = (costs.measured_file(tmp_path, 3, stages) for stages in ([], ["attack direct"]))
    assert whole != alone
    assert whole == costs.measured_file(tmp_path, 3, [])
    monkeypatch.setattr(costs, "processor", lambda: "another")
    assert costs.measured_file(tmp_path, 3, []) != whole

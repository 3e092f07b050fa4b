"""The battery on the noise lets a good generator pass and finds what is wrong with bad ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def battery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """With blocks of a sixteenth of the size."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    module = importlib.import_module("noise_battery")
    monkeypatch.setattr(module, "STEPS", 16)
    monkeypatch.setattr(module, "IMAGES", 16)
    monkeypatch.setattr(module, "LAGS", 8)
    return module


@pytest.mark.parametrize("name", ["hash", "PCG64"])
def test_good_generators_pass(battery: ModuleType, name: str) -> None:
    assert battery.passes(battery.examine(battery.GENERATORS[name], [5]))


@pytest.mark.parametrize(
    ("name", "test"), [("LCG", "low bits of neighbouring images"), ("one round", "parts of streams in other images")]
)
def test_bad_generators_fail(battery: ModuleType, name: str, test: str) -> None:
    lowest = battery.examine(battery.GENERATORS[name], [5])
    assert not battery.passes(lowest)
    assert lowest[test] < 1e-9

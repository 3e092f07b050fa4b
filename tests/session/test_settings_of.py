"""Where a run keeps things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leakbench.bench.grid import GridConfig
from leakbench.session import run
from leakbench.session.run import NO_BFLOAT16, settings_of


@pytest.mark.parametrize(
    ("given", "variable", "taken"),
    [("given", "", "given"), ("given", "variable", "given"), (None, "variable", "variable"), (None, "", None)],
)
def test_the_variable_stands_in_for_the_local_cache(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str, taken: str | None
) -> None:
    monkeypatch.setenv("LEAKBENCH_LOCAL_CACHE", variable)
    settings = settings_of(None, Path(given) if given else None, None, None, None, "cpu", GridConfig(defense=("ann",)))
    assert settings.local_cache == taken


def test_evaluation_models_are_trained_in_the_precision_of_the_run() -> None:
    def precision(**options: Any) -> str:
        return settings_of(None, None, None, None, None, "cpu", GridConfig(defense=("ann",), **options)).precision

    assert precision() == "float32"
    assert precision(precision="bfloat16") == "bfloat16"


@pytest.mark.parametrize(
    ("native", "precision", "device", "said"),
    [
        (False, "bfloat16", "cpu", [NO_BFLOAT16]),
        (False, "bfloat16", "cuda", []),  # the processor multiplies nothing
        (False, "float32", "cpu", []),
        (True, "bfloat16", "cpu", []),
        (None, "bfloat16", "cpu", []),
    ],
)
def test_bfloat16_is_warned_of_where_the_processor_has_none(
    native: bool | None,
    precision: str,
    device: str,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(run, "has_bfloat16", lambda: native)
    settings_of(None, None, None, None, None, device, GridConfig(defense=("ann",), precision=precision))
    assert caplog.messages == said

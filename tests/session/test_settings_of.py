"""Where a run keeps things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leakbench.bench.grid import GridConfig
from leakbench.session.run import settings_of


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

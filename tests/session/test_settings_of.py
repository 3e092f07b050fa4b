"""Where a run keeps things."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakbench.session.run import settings_of


@pytest.mark.parametrize(
    ("given", "variable", "taken"),
    [("given", "", "given"), ("given", "variable", "given"), (None, "variable", "variable"), (None, "", None)],
)
def test_the_variable_stands_in_for_the_local_cache(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str, taken: str | None
) -> None:
    monkeypatch.setenv("LEAKBENCH_LOCAL_CACHE", variable)
    settings = settings_of(None, Path(given) if given else None, None, None, None, "cpu", None)
    assert settings.local_cache == taken

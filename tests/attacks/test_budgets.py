"""The table of budgets in docs/attacks.md says what the attacks' parameters are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leakbench import registry
from leakbench.attacks import auto, auto_v2
from leakbench.contracts import Attack

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"
ROWS = dict(re.findall(r"^\| `([\w-]+)`[^|]* \| ([^|]*) \| [^|]* \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_attack_has_its_budget_there() -> None:
    assert ROWS.keys() == {entry.name for entry in registry.entries("attack").values() if entry.origin == "built-in"}


@pytest.mark.parametrize(("name", "module"), [("auto-v1", auto), ("auto-v2", auto_v2)])
def test_the_budget_of_an_ensemble_is_what_it_spends_at_most(name: str, module: Any) -> None:
    row = ROWS[name]
    assert f"{module.GRADIENT_STEPS:,} gradient steps and {module.QUERIES:,} queries an image at most" in row
    if name == "auto-v2":
        assert f"{auto_v2.SHARED_QUERIES:,} queries for all images" in row


@pytest.mark.parametrize("name", sorted(ROWS.keys() - {"auto-v1", "auto-v2"}))
def test_the_budget_is_that_of_the_standard_preset(name: str) -> None:
    plugin: type[Attack[Any]] = registry.load("attack", name)
    params = plugin(**plugin.presets.get("standard", {})).params
    said = re.findall(r"`(\w+)=([\d.]+)`", ROWS[name])
    assert said
    assert {key: float(value) for key, value in said} == {key: float(getattr(params, key)) for key, _ in said}

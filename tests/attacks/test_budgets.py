"""The table of budgets in docs/attacks.md says what the attacks' parameters are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leakbench import registry
from leakbench.contracts import Attack

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"
ROWS = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]*) \| [^|]* \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_attack_on_classes_but_the_ensembles_has_its_budget_there() -> None:
    built_in = [entry.name for entry in registry.entries("attack").values() if entry.origin == "built-in"]
    plugins = {name: registry.load("attack", name) for name in built_in}
    on_classes = {name for name, plugin in plugins.items() if plugin.leakage == "inversion"}
    assert ROWS.keys() == {name for name in on_classes if not plugins[name].ensemble}


@pytest.mark.parametrize("name", ROWS)
def test_the_budget_is_that_of_the_standard_preset(name: str) -> None:
    plugin: type[Attack[Any]] = registry.load("attack", name)
    params = plugin(**plugin.presets.get("standard", {})).params
    said = re.findall(r"`(\w+)=([\d.]+)`", ROWS[name])
    assert said
    assert {key: float(value) for key, value in said} == {key: float(getattr(params, key)) for key, _ in said}

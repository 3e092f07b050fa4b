"""The table of budgets in docs/attacks.md says what the attacks' parameters are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leakbench import registry
from leakbench.attacks import auto, auto_mia, auto_mia_v2, auto_mia_v3, auto_v2, distilled, pruned, repaired
from leakbench.contracts import Attack

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"
ROWS = dict(re.findall(r"^\| `([\w-]+)`[^|]* \| ([^|]*) \| [^|]* \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_attack_has_its_budget_there() -> None:
    assert ROWS.keys() == {entry.name for entry in registry.entries("attack").values() if entry.origin == "built-in"}


MODULES = {
    "auto-v1": auto,
    "auto-v2": auto_v2,
    "repaired": repaired,
    "pruned": pruned,
    "distilled": distilled,
    "auto_mia-v1": auto_mia,
    "auto_mia-v2": auto_mia_v2,
    "auto_mia-v3": auto_mia_v3,
}


@pytest.mark.parametrize("name", MODULES)
def test_the_budget_of_an_ensemble_is_what_it_spends_at_most(name: str) -> None:
    row, module = ROWS[name], MODULES[name]
    said = []
    if steps := getattr(module, "GRADIENT_STEPS", 0):
        said.append(f"{steps:,} gradient steps")
    if queries := getattr(module, "QUERIES", 0):
        said.append(f"{queries:,} {'query' if queries == 1 else 'queries'} an image")
    if simulations := getattr(module, "SIMULATIONS", 0):
        said.append(f"{simulations:,} simulations an image")
    if shared := getattr(module, "SHARED_QUERIES", 0):
        said.append(f"{shared:,} queries for all images")
    assert said and all(one in row for one in said), said


@pytest.mark.parametrize("name", sorted(ROWS.keys() - MODULES.keys()))
def test_the_budget_is_that_of_the_standard_preset(name: str) -> None:
    plugin: type[Attack[Any]] = registry.load("attack", name)
    params = plugin(**plugin.presets.get("standard", {})).params
    said = re.findall(r"`(\w+)=([\d.]+)`", ROWS[name])
    assert said
    assert {key: float(value) for key, value in said} == {key: float(getattr(params, key)) for key, _ in said}

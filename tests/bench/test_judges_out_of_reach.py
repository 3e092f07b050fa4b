"""No attack and no defence can get at a judge: by import rules, and by what they are handed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_runs import Warm, copied, run_here

from leakbench.models.judges import BnConv

SPY = '''
"""An attack and a defence that turn over everything they are handed, in search of a judge."""

import torch

from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds

FORBIDDEN = {
    *("Judge", "BnConv", "Mixer", "Ensemble", "Evaluation", "RealImages"),
    *("Workspace", "Pipeline", "Store", "Dataset"),
}


def search(*roots):
    """Every object that leads from the roots over attributes, containers, closures and bound methods."""
    seen, todo = set(), list(roots)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, torch.Tensor, type)):
            continue
        seen.add(id(thing))
        names = {base.__name__ for base in type(thing).__mro__}
        if names & FORBIDDEN:
            raise RuntimeError(f"within reach: {type(thing).__name__}")
        if isinstance(thing, dict):
            todo += list(thing.values())
        elif isinstance(thing, (list, tuple, set, frozenset)):
            todo += list(thing)
        todo += list(getattr(thing, "__dict__", {}).values())
        todo += [getattr(thing, "__self__", None)]
        todo += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    return len(seen)


class SpyAttack(Attack[Params]):
    """Looks for a judge."""

    name = "spy"
    needs = Access.WEIGHTS

    def run(self, victim, targets, context):
        assert search(self, victim, context) > 20
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class SpyDefense(Defense[Params]):
    """Looks for a judge, then converts."""

    name = "spy-defense"

    def protect(self, ann, data, context):
        context.shared_store = None  # the framework's own function, to be called and not to be taken apart
        assert search(self, ann, data, context) > 20
        network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps))
        images, _ = data.sample(8, context.generator)
        balance_thresholds(network, images, context.seed())
        return network
'''


@pytest.mark.slow
def test_what_attacks_and_defences_are_handed_leads_to_no_judge(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY, encoding="utf-8")
    options = warm.tiny.options(
        defense=[f"{tmp_path}/spy.py:SpyDefense"], attack=[f"{tmp_path}/spy.py:SpyAttack"], controls=False, set=None
    )
    record = run_here(options, copied(warm.cache, tmp_path / "cache"), tmp_path / "out")
    spied = [cell for cell in record.cells if cell.defense]
    assert len(spied) == 2
    assert [(cell.status, cell.reason) for cell in spied] == [("ok", "")] * 2


def test_the_search_finds_a_judge_that_is_within_reach() -> None:
    space: dict[str, Any] = {}
    exec(compile(SPY, "spy.py", "exec"), space)
    with pytest.raises(RuntimeError, match="within reach: BnConv"):
        space["search"](SimpleNamespace(hidden=[{"one": BnConv((1, 8, 8), 3)}]))


def test_an_import_rule_keeps_judges_and_data_sets_from_plugins() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    rules = [rule for rule in project["tool"]["importlinter"]["contracts"] if rule["type"] == "forbidden"]
    assert any(
        {"leakbench.attacks", "leakbench.defenses"} <= set(rule["source_modules"])
        and "leakbench.models.judges" in rule["forbidden_modules"]
        for rule in rules
    )

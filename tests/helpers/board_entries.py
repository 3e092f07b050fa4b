"""Entries of a leaderboard by hand, and runs that follow a protocol, for what makes entries of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from compared_runs import NEEDS as NEEDED_IN_RUNS
from compared_runs import attacked, own, run

import leakbench
from leakbench import registry
from leakbench.bench.grid import make_config
from leakbench.bench.leaderboard.entries import AttackEntry, DefenseEntry, Entry
from leakbench.bench.protocols import PROTOCOLS
from leakbench.records import PluginInfo, RunRecord

DIGITS = "leakbench-v2-digits"
REQUIRED = PROTOCOLS[DIGITS].attacks
ENSEMBLE = next(iter(REQUIRED))
NEEDS = dict.fromkeys(REQUIRED, "WEIGHTS") | {"distilled": "SCORES", "direct": "WEIGHTS", "label_only": "LABELS"}


SEEDS = range(4)


def key_of(text: str) -> str:
    """As the store's keys look."""
    return hashlib.sha256(text.encode()).hexdigest()


def plugin(name: str = "privatesnn", **given: Any) -> dict[str, Any]:
    """A built-in one by its name, any other a file that ran isolated."""
    fields = {"name": name, "label": name, "origin": "built-in", "source": "built-in", "version": 1, "params": {}}
    if not any(name in registry.built_in(kind) for kind in ("defense", "attack")):
        fields |= {"origin": f"{name}.py:Theirs", "source": key_of(f"source of {name}"), "ran": "isolated"}
    return fields | given


def measured(value: float, spread: float | None = 0.1, n: int = 40) -> dict[str, Any]:
    ends = {} if spread is None else {"low": max(0.0, value - spread), "high": min(1.0, value + spread)}
    return {"value": value, **ends, "n": n}


def result(name: str = ENSEMBLE, value: float = 0.5, spread: float | None = 0.1, **given: Any) -> dict[str, Any]:
    """What an attack got."""
    fields = {
        "plugin": plugin(name, version=REQUIRED.get(name, 3)),
        "access": NEEDS.get(name, "WEIGHTS"),
        "status": "ok",
        "validity": "valid",
        "leaks": value > 0.2,
        "index": measured(value, spread),
        "queries": 40.0,
        "gradient_steps": 1500.0,
        "seconds": 12.5,
    }
    return fields | given


def quoted(
    first: dict[str, Any], *more: dict[str, Any], value: float = 0.1, spread: float | None = 0.1
) -> list[dict[str, Any]]:
    """Results of all required attacks: ``first`` of the ensemble, ``value`` of what is run with it, and ``more``."""
    return [first, *(result(name, value, spread) for name in REQUIRED if name != ENSEMBLE), *more]


def by_access(made: dict[str, Any]) -> list[dict[str, Any]]:
    """What attackers with so much access get: of the weights the worst case, of less the attack that gets most."""
    levels = ("LABELS", "SCORES", "WEIGHTS")
    named = len(made["verdict"]["named"])
    rows = []
    for access in levels:
        within = [one for one in made["attacks"] if levels.index(one["access"]) <= levels.index(access)]
        known = [one for one in within if one["index"] and one["validity"] not in (None, "invalid")]
        most = max(known, key=lambda one: one["index"]["value"], default=None)
        label, index = (most["plugin"]["label"], most["index"]) if most else ("", None)
        if access == "WEIGHTS":
            label, index = made["attack"], made["index"]
        half = index and {"value": 300.0, "low": 120.0} if index and index["value"] >= 0.5 else None
        rows.append(
            {
                "access": access, "attack": label if index else "", "index": index,
                "classes": named if access == "WEIGHTS" else 0, "cost_to_half": half,
                "area": index and measured(index["value"] / 2, 0.05),
            }
        )  # fmt: skip
    return rows


def keys(what: str) -> list[str]:
    """Of the four networks."""
    return [key_of(f"{what} {seed}") for seed in SEEDS]


def artifacts(attacks: list[dict[str, Any]], name: str = "privatesnn", protocol: str = DIGITS) -> dict[str, Any]:
    """Keys of networks and images, of which ANNs are those of the protocol."""
    images = {one["plugin"]["label"]: keys(f"{name} {one['plugin']['label']}") for one in attacks}
    return {"anns": keys(f"ann of {protocol}"), "victims": keys(f"{name} in {protocol}"), "images": images}


def tree(
    name: str = "privatesnn", value: float = 0.5, spread: float | None = 0.1, drop: float = 0.01, **given: Any
) -> dict[str, Any]:
    """A defence's entry as JSON has it; ``given`` takes the place of fields."""
    fields: dict[str, Any] = {
        "schema_version": 1,
        "kind": "defense",
        "protocol": DIGITS,
        "defense": plugin(name, params={"epochs": 5}),
        "run": {
            "leakbench": version(),
            "created": "2026-01-02T03:04:05+00:00",
            "environments": [
                {
                    "python": "3.11.7", "leakbench": version(), "torch": "2.6.0", "numpy": "2.1.0",
                    "numba": "0.61.0", "processor": "AMD EPYC", "device": "cpu", "threads": "1", "artifacts": 9,
                }
            ],
        },
        "accuracy": measured(0.95, 0.02, 4),
        "accuracy_drop": {"value": drop, "low": drop - 0.02, "high": drop + 0.02, "n": 4},
        "energy_ratio": {"value": 21.0, "low": 19.0, "high": 23.0, "n": 4},
        "training_images_read": {"value": 0.0, "n": 4},
        "verdict": {
            "outcome": "leaks" if value > 0.2 else "resists",
            "reason": "by hand",
            "p": 0.0001 if value > 0.2 else 0.6,
            "networks": 4,
            "classes": 10,
            "named": [str(c) for c in range(round(10 * value))] if value > 0.2 else [],
            "missing": [],
        },
        "attack": ENSEMBLE,
        "index": measured(value, spread),
        "attacks": quoted(result(value=value, spread=spread), value=value, spread=spread),
        "comparable": True,
        "why": "",
    }  # fmt: skip
    if not given.get("comparable", True) and value <= 0.2:
        fields["verdict"] = fields["verdict"] | {"outcome": "inconclusive"}
    made = fields | given
    source = json.dumps([made["defense"][part] for part in ("source", "version", "params")])
    of_networks = f"{name} {source}"
    made.setdefault("artifacts", artifacts(made["attacks"], of_networks, made["protocol"]))
    made.setdefault("access", by_access(made))
    return made


def broken(before: DefenseEntry, value: float = 0.9, spread: float = 0.05, **given: Any) -> dict[str, Any]:
    """The entry of an attack that breaks it, as JSON has it."""
    kept = before.model_dump(include={"schema_version", "protocol", "defense", "run"})
    new = plugin("new", origin="new.py:New", source=key_of("new"), ran="isolated", cites="Doe 2026")
    fields = {
        "kind": "attack",
        "attack": result("new", value, spread, plugin=new),
        "breaks": {
            "entry": key_of("file"),
            "attack": before.attack,
            "index": before.index and before.index.model_dump(),
        },
    }
    made = kept | fields | given
    images = {made["attack"]["plugin"]["label"]: keys("images of new")}
    return {"artifacts": before.artifacts.model_dump() | {"images": images}} | made


def entry(*args: Any, **given: Any) -> DefenseEntry:
    return DefenseEntry.model_validate(tree(*args, **given))


def attack_on(before: DefenseEntry, *args: Any, **given: Any) -> AttackEntry:
    return AttackEntry.model_validate(broken(before, *args, **given))


def saved(folder: Path, **entries: Entry) -> Path:
    """Each in a file of that name."""
    folder.mkdir(exist_ok=True)
    for name, one in entries.items():
        (folder / f"{name}.json").write_text(one.model_dump_json(), encoding="utf-8")
    return folder


def version() -> str:
    return leakbench.__version__


# --- runs ------------------------------------------------------------------------------------------------------------


def following(
    share: float = 0.5, attacks: dict[str, float] | None = None, defense: str = "privatesnn", **given: Any
) -> RunRecord:
    """A run that says that it follows the protocol: four networks, attacks by what they get recognised."""
    cells, tried = [], dict.fromkeys(REQUIRED, share) | (attacks or {})
    for seed in SEEDS:
        keys = {"ann": key_of(f"ann {seed}"), "victim": key_of(f"{defense} {seed}")}
        cells.append(own(defense, seed, right=194, artifacts=keys, defense_params={"epochs": 5}))
        for attack, recognised in tried.items():
            images = {"judge a": "judge", "images": key_of(f"{defense} {attack} {seed}")}
            params = {"attack_params": {}} if attack in REQUIRED else {}
            cells.append(attacked(defense, [recognised] * 10, attack, seed, artifacts=images, **params))
    plugins = [
        PluginInfo(
            kind="attack", name=name, version=1, summary="", cites=f"{name} 2020",
            needs=NEEDED_IN_RUNS.get(name, "WEIGHTS"),
        )
        for name in NEEDS
    ]  # fmt: skip
    plugins.append(PluginInfo(kind="defense", name=defense, version=1, summary="", cites="Kim 2022"))
    protocol = PROTOCOLS[DIGITS]
    named = {"defense": defense, "attack": list(tried), "set": {f"{defense}.epochs": 5}}
    grid = make_config({**protocol.options, **named}).model_dump(mode="json")
    made = run(*cells, **({"protocol": DIGITS, "plugins": plugins, "grid": grid} | given))
    if not made.protocol:
        return made
    data = [one.model_copy(update={"fingerprint": protocol.fingerprint}) for one in made.datasets]
    return made.model_copy(update={"datasets": data})

"""Comparisons built by hand, and runs whose defences really differ."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from by_hand import declared
from report_samples import DATASET, MODEL, anchor, cell, index, record, row, scores, share, verdict

from leakbench.bench.comparison import ComparedAttack, ComparedDefense, ComparedRun, Comparison, Pair
from leakbench.records import CellRecord, Index, RunRecord, Value

CLASSES = 10


def attacked(attack: str = "inversion", value: float | None = 0.5, **given: Any) -> ComparedAttack:
    fields: dict[str, Any] = {
        "plugin": attack.partition("[")[0],
        "access": "weights",
        "validity": "valid",
        "leaks": True,
    }
    fields |= {"index": index(value), "queries": 40.0, "gradient_steps": 300.0, "seconds": 2.5}
    return ComparedAttack(attack=attack, **(fields | given))


def defense(label: str, rank: tuple[int, int] | None = (1, 1), value: float = 0.5, **given: Any) -> ComparedDefense:
    """One that the attack "inversion" gets ``value`` out of; without a rank inconclusive."""
    fields: dict[str, Any] = {
        "runs": ["one"],
        "dataset": DATASET,
        "model": MODEL,
        "defense": label,
        "plugin": label,
        "params": {"samples": 500},
        "version": 1,
        "source": "",
        "preset": "standard",
        "timesteps": 16,
        "seeds": [0],
        "anns": {0: "k"},
        "values": [share("accuracy", 90), Value(metric="energy_ratio_int32", value=5.9)],
        "outcome": "leaks" if rank else "inconclusive",
        "reason": "",
        "attack": "inversion" if rank else "",
        "index": index(value) if rank else None,
        "attacks": [attacked(value=value)],
        "unranked": "" if rank else "no attack was valid on it",
    }
    return ComparedDefense(label=label, rank=rank, **(fields | given))


def pair(first: str, second: str, relation: Any = "not distinguishable", value: float = -0.02, **given: Any) -> Pair:
    significant = relation in ("less", "more")
    fields: dict[str, Any] = {
        "dataset": DATASET,
        "quantity": "leakage",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "p": 0.01 if significant else 0.6,
        "adjusted": 0.02 if significant else 1.0,
        "paired": True,
        "basis": "paired over 1 seed and 10 classes; inversion",
    }
    return Pair(first=first, second=second, relation=relation, **(fields | given))


def run(name: str = "one", **given: Any) -> ComparedRun:
    fields: dict[str, Any] = {"created": "2026-01-02T03:04:05+00:00", "leakbench": "0.2.0", "complete": True}
    fields |= {"command": f"leakbench run --out runs/{name}", "seeds": [0], "environments": []}
    return ComparedRun(name=name, **(fields | given))


def comparison(defenses: Sequence[ComparedDefense], pairs: Sequence[Pair] = (), **given: Any) -> Comparison:
    attacks = dict.fromkeys(attack.attack for one in defenses for attack in one.attacks)
    fields: dict[str, Any] = {
        "leakbench": "0.2.0",
        "created": "2026-01-02T03:04:05+00:00",
        "runs": [run(name) for name in dict.fromkeys(name for one in defenses for name in one.runs)],
        "attacks": {name: {"preset": "standard", "version": 2, f"{name}.iterations": 300} for name in attacks},
        "metrics": list(declared().values()),
        "differs": [],
        "obstacles": [],
    }
    return Comparison(defenses=list(defenses), pairs=list(pairs), **(fields | given))


def three() -> Comparison:
    """One leaks significantly less than two that are not distinguishable; a fourth is inconclusive."""
    pairs = [pair("low", "mid", "less", -0.4), pair("low", "high", "less", -0.5), pair("mid", "high")]
    pairs += [
        pair(p.first, p.second, "more", 0.1, quantity="accuracy", basis="the test images of one seed")
        for p in pairs[:1]
    ]
    return comparison(
        [
            defense("low", (1, 1), 0.2),
            defense("mid", (2, 3), 0.6),
            defense("high", (2, 3), 0.7),
            defense("open", None, attacks=[attacked(validity="invalid", reason="G1: no better than chance")]),
        ],
        pairs,
    )


OBSTACLES = [
    "other data: one has aa, two has bb",
    "images a class: one has 10, two has 20",
]


def forced() -> Comparison:
    """Defences of two runs that should not be compared, for two reasons, and a pair of one run."""
    defenses = [defense("a", (1, 2)), defense("b", (1, 2), runs=["two"]), defense("c", (1, 2))]
    pairs = [
        pair(x.label, y.label, marks=OBSTACLES if x.runs != y.runs else [])
        for x, y in itertools.combinations(defenses, 2)
    ]
    return comparison(defenses, pairs, obstacles=OBSTACLES)


def measured(hits: Mapping[str, Sequence[int]], seeds: Sequence[int] = (0, 1, 2), attacks: int = 1) -> RunRecord:
    """A run: of each defence how many of 10 images the evaluation models classify as the target, by class (the same at
    each seed but for the first class, which has one hit more at odd seeds)."""
    cells: list[CellRecord] = []
    names = [f"attack{number}" for number in range(attacks)]
    for seed in seeds:
        for label, by_class in hits.items():
            own = [by_class[0] + seed % 2, *by_class[1:]]
            at: dict[str, Any] = {"seed": seed, "artifacts": {"ann": f"ann{seed}"}}
            cells.append(cell(label, values=[share("accuracy", 90 + seed)], **at))
            values = [share("judge_accuracy", sum(own))]
            cells += [cell(label, name, values=values, classes=scores(*own), **at) for name in names]
        for name, count in (("noise", 1), ("real", 10)):
            cells.append(
                anchor(
                    name,
                    seed=seed,
                    values=[share("judge_accuracy", 10 * count)],
                    classes=scores(*[count] * CLASSES),
                )
            )
    return record(
        cells,
        rows=[row(label, name, index_of(by_class)) for label, by_class in hits.items() for name in names],
        verdicts=[verdict(label, attack=names[0], index=index_of(by_class)) for label, by_class in hits.items()],
    )


def index_of(hits: Sequence[int]) -> Index:
    return index(round((sum(hits) / len(hits) - 1) / 9, 2))

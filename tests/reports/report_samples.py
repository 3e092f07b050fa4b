"""Records built by hand, and pictures for them: what a run would have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from by_hand import declared

from leakbench.records import (
    AttackRow,
    CellRecord,
    ClassIndex,
    ClassScore,
    Environment,
    Gate,
    Index,
    RunRecord,
    Scale,
    Value,
    Verdict,
)

DATASET, MODEL = "digits", "vgg-small"


def wilson(successes: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def share(metric: str, successes: int, n: int = 100) -> Value:
    low, high = wilson(successes, n)
    return Value(metric=metric, value=successes / n, low=low, high=high, n=n)


def plain(metric: str, value: float) -> Value:
    return Value(metric=metric, value=value)


def cell(defense: str, attack: str = "", **given: Any) -> CellRecord:
    fields: dict[str, Any] = {
        "dataset": DATASET,
        "model": MODEL,
        "seed": 0,
        "leakage": "inversion" if attack else "",
        "defense_name": defense.partition("[")[0],
    }
    return CellRecord(defense=defense, attack=attack, **(fields | given))


def anchor(name: str, **given: Any) -> CellRecord:
    return cell("", name, **({"defense_name": ""} | given))


def judged(successes: int, distance: float, n: int = 100) -> list[Value]:
    near = Value(metric="fd_bnconv", value=distance, low=distance * 0.9, high=distance * 1.12, n=n)
    return [share("judge_accuracy", successes, n), near]


def scores(*hits: int, n: int = 10) -> list[ClassScore]:
    """Hits of the classes 0, 1, ..., each out of ``n`` images."""
    return [
        ClassScore(metric="judge_accuracy", target=target, value=count / n, n=n) for target, count in enumerate(hits)
    ]


def index(value: float | None, half: float = 0.1, metric: str = "judge_accuracy", **given: Any) -> Index:
    """The index with an interval of ``half`` to either side, clipped as the real one is."""
    ends = {} if value is None else {"low": max(0.0, value - half), "high": min(1.0, value + half), "n": 10}
    return Index(metric=metric, value=value, **(ends | given))


def by_class(*values: float | None, half: float = 0.2, **given: Any) -> Index:
    """An index of .5 over all, taken apart into the classes 0, 1, ..."""
    apart = [
        ClassIndex(target=target, value=None)
        if value is None
        else ClassIndex(target=target, value=value, low=max(0.0, value - half), high=min(1.0, value + half))
        for target, value in enumerate(values)
    ]
    return index(0.5, classes=apart, **given)


def gates(**outcomes: bool | None) -> list[Gate]:
    """All five, passed where nothing else is said."""
    names: Any = ("G1", "G2", "G3", "G4", "G5")
    return [Gate(name=name, passed=outcomes.get(name, True), reason=f"why {name}") for name in names]


def row(defense: str, attack: str, *indices: Index, **given: Any) -> AttackRow:
    fields: dict[str, Any] = {
        "leakage": "inversion",
        "dataset": DATASET,
        "model": MODEL,
        "control": defense in ("ann", "random", "han2020"),
        "validity": "valid",
        "reason": "",
        "leaks": True,
        "p": 0.0004,
        "gates": gates(),
        "queries": 0.0,
        "gradient_steps": 300.0,
        "seconds": 2.5,
    }
    return AttackRow(defense=defense, attack=attack, indices=list(indices), **(fields | given))


def verdict(defense: str, outcome: Any = "leaks", attack: str = "inversion", **given: Any) -> Verdict:
    fields: dict[str, Any] = {
        "leakage": "inversion",
        "dataset": DATASET,
        "model": MODEL,
        "index": index(0.7),
        "reason": f"{attack} draws it.",
    }
    return Verdict(defense=defense, outcome=outcome, attack=attack, **(fields | given))


def scale(metric: str = "judge_accuracy", **given: Any) -> Scale:
    fields: dict[str, Any] = {
        "dataset": DATASET,
        "model": MODEL,
        "noise": Value(metric=metric, value=0.1, n=400),
        "real": Value(metric=metric, value=0.97, n=400),
        "fresh_noise": index(0.02, metric=metric, half=0.05),
        "fresh_real": index(0.99, metric=metric, half=0.05),
    }
    return Scale(metric=metric, **(fields | given))


def record(cells: list[CellRecord], **given: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "leakbench": "0.1.0",
        "created": "2025-01-02T03:04:05Z",
        "seconds": 81.25,
        "command": "leakbench run --defense privatesnn --attack all",
        "complete": True,
        "grid": {"defense": ["privatesnn"], "attack": ["all"], "seeds": 1, "preset": "quick"},
        "environment": {"python": "3.11.7", "torch": "2.6.0", "machine": "x86_64, 2 cores"},
        "datasets": [],
        "judges": [],
        "plugins": [],
        "metrics": list(declared().values()),
        "synthetic": [],
        "scales": [],
        "rows": [],
        "verdicts": [],
    }
    return RunRecord(cells=cells, **(fields | given))


def environment(**given: Any) -> Environment:
    """Where artifacts were made; of twelve unless told otherwise."""
    fields = {"python": "3.11.7", "leakbench": "0.1.0", "torch": "2.4.1", "numpy": "2.1.0", "numba": "0.61.0"}
    fields |= {"processor": "a processor", "device": "cpu", "threads": "2"}
    return Environment(**({"artifacts": 12} | fields | given))


def write(run: Path, made: RunRecord) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "results.json").write_text(made.model_dump_json(), encoding="utf-8")
    return run


def calibration() -> list[CellRecord]:
    """The anchors of the smallest record that can be read."""
    return [anchor("noise", values=judged(10, 140.0)), anchor("real", values=judged(97, 9.0))]


def small() -> RunRecord:
    """One defence, one attack, both controls and anchors."""
    return record(
        [
            cell("privatesnn", values=[share("accuracy", 341, 360)]),
            cell("privatesnn", "inversion", values=judged(71, 60.0)),
            cell("ann", values=[share("accuracy", 351, 360)], control=True),
            cell("ann", "inversion", values=judged(70, 58.0), control=True),
            cell("random", "inversion", values=judged(10, 150.0), control=True),
            *calibration(),
        ],
        rows=[
            row("privatesnn", "inversion", index(0.7)),
            row("ann", "inversion", index(0.69)),
            row("random", "inversion", index(0.0), leaks=False, p=0.61),
        ],
        verdicts=[verdict("privatesnn")],
        scales=[scale()],
    )

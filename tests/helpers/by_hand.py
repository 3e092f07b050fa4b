"""Cells written by hand, for what is derived from cells alone: indices, gates and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from leakbench import registry
from leakbench.leakage.seed_group import Declarations, SeedGroup, seed_group
from leakbench.metrics.estimate import proportion
from leakbench.metrics.metric import Declaration
from leakbench.records import CellRecord, ClassScore, Value

CLASSES = 10
IMAGES = 10
"""of each class"""

Scores = float | Sequence[float | None]
"""of every class, or one for each class; None where a class was not measured"""


@cache
def declared() -> Declarations:
    """What the built-in metrics say of themselves."""
    declarations: dict[str, Declaration] = {
        name: registry.load("metric", name).declaration() for name in registry.built_in("metric")
    }
    return declarations


def cell(
    defense: str = "",
    attack: str = "",
    by_class: Mapping[str, Scores] | None = None,
    overall: Mapping[str, float | tuple[float, float, float]] | None = None,
    images: int = IMAGES,
    **fields: Any,
) -> CellRecord:
    """One cell with metrics that are means over classes, and others: a value, or value, low and high."""
    classes: list[ClassScore] = []
    values: list[Value] = []
    for metric, scores in (by_class or {}).items():
        each = [scores] * CLASSES if isinstance(scores, int | float) else list(scores)
        known = {c: float(score) for c, score in enumerate(each) if score is not None}
        for c, score in known.items():
            ends = (0.9 * score, 1.1 * score) if "distance" in metric else _wilson(score, images)
            classes.append(
                ClassScore(metric=metric, target=c, value=score, low=ends[0], high=ends[1], n=images)
            )  # fmt: skip
        values.append(Value(metric=metric, value=sum(known.values()) / len(known), n=images * len(known)))
    for metric, given in (overall or {}).items():
        value, low, high = given if isinstance(given, tuple) else (given, None, None)
        values.append(Value(metric=metric, value=value, low=low, high=high, n=images * CLASSES))
    fixed: dict[str, Any] = {
        "dataset": "digits",
        "model": "vgg4",
        "seed": 0,
        "leakage": "inversion" if attack else "",
        "attack_name": attack.partition(" ")[0],
    }
    return CellRecord(
        defense=defense, attack=attack, values=values, classes=classes, **(fixed | fields)
    )  # fmt: skip


@cache
def _wilson(share: float, images: int) -> tuple[float, float]:
    estimate = proportion(round(share * images), images)
    return estimate.low, estimate.high


def place(*cells: CellRecord) -> SeedGroup:
    return seed_group(cells, declared())


def seen(share: Scores, p: float | None = 0.0001, confidence: float | None = 0.99, **fields: Any) -> SeedGroup:
    """One cell of an attack of which the judges name such a share right."""
    overall = {name: v for name, v in (("p_value", p), ("victim_confidence", confidence)) if v is not None}
    return place(cell("mine", "inversion", {"judge_accuracy": share}, overall, **fields))


NOWHERE = SeedGroup((), declared())

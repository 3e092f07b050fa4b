"""Runs written by hand for what compares them: cells as a run has them, rows and verdicts as it concludes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from by_hand import CLASSES, cell, declared, voted

from leakbench import registry
from leakbench.leakage.inversion.verdict import conclude
from leakbench.metrics.estimate import proportion
from leakbench.records import CellRecord, DatasetInfo, Environment, PluginInfo, RunRecord, Value

NEEDS = {"direct": "WEIGHTS", "extraction": "SCORES", "label_only": "LABELS", "loss_threshold": "SCORES"}
Scores = Sequence[float]
"""judge accuracy, one for each class"""

QUOTED = {name: registry.load("attack", name).version for name in registry.together("attack", "auto")}
"""what protocols ask for"""


def own(defense: str, seed: int = 0, right: int = 194, **given: Any) -> CellRecord:
    """A defence's own cell: ``right`` of 200 test images, 196 by its ANN."""
    estimate = proportion(right, 200)
    values = [
        Value(metric="accuracy", value=estimate.value, low=estimate.low, high=estimate.high, n=200),
        Value(metric="ann_accuracy", value=0.98, low=proportion(196, 200).low, high=proportion(196, 200).high, n=200),
        Value(metric="energy_ratio_int32", value=20.0 + seed),
        Value(metric="seconds", value=3.0),
    ]
    fields: dict[str, Any] = {
        "defense_name": defense.partition("[")[0],
        "timesteps": 16,
        "preset": "quick",
        "defense_version": 1,
        "artifacts": {"ann": f"ann {seed}", "victim": f"{defense} {seed}"},
    }
    made = cell(defense, **(fields | {"seed": seed} | given))
    return made.model_copy(update={"values": values})


def attacked(
    defense: str, scores: Scores, attack: str = "direct", seed: int = 0, confidence: float = 0.99, **given: Any
) -> CellRecord:
    """An attack's cell with the share of each class that is recognised, and how sure the victim is of its images."""
    fields: dict[str, Any] = {
        "defense_name": defense.partition("[")[0],
        "preset": "quick",
        "attack_version": QUOTED.get(attack, 2),
        "attack_params": {"steps": 40},
        "artifacts": {"judge a": "judge", "images": f"{defense} {attack} {seed}"},
    }
    # certain for what is recognised at all, as a permutation test is, and as votes may be
    p = 0.0001 if sum(scores) / len(scores) > 0.25 else 0.5
    overall = {"p_value": p, "victim_confidence": confidence, "queries": 10.0, "gradient_steps": 40.0, "seconds": 2.0}
    fields |= {"votes": voted(scores, 0.25)}
    return cell(defense, attack, {"judge_accuracy": scores}, overall, **(fields | {"seed": seed} | given))


def scored(
    defense: str, area: float, p: float, attack: str = "loss_threshold", halves: float = 0.5, **given: Any
) -> CellRecord:
    """The cell of an attack after members with its AUC, the p of it, and the AUC of members against members."""
    overall = {"membership_auc": (area, max(0.0, area - 0.03), min(1.0, area + 0.03)), "membership_p": p}
    overall |= {"members_against_members_auc": (halves, halves - 0.04, halves + 0.04), "queries": 400.0}
    fields = {
        "leakage": "membership",
        "defense_name": defense,
        "control": defense in ("overfitted", "random", "unseen"),
    }
    return cell(defense, attack, overall=overall, **(fields | given))


def surroundings(seeds: Sequence[int], attacks: Sequence[str], **given: Any) -> list[CellRecord]:
    """Anchors and controls: noise at chance, real images at .9, an unprotected network that leaks, an untrained one.

    The unprotected network shows half of its classes, so that none of the defences shows much less than it.
    """
    cells: list[CellRecord] = []
    judge = {"artifacts": {"judge a": "judge"}}
    for seed in seeds:
        cells.append(cell("", "noise", {"judge_accuracy": 0.1}, seed=seed, **(judge | given)))
        cells.append(cell("", "real", {"judge_accuracy": 0.9}, seed=seed, **(judge | given)))
        for control, share in (("han2020", 0.5), ("random", 0.1)):
            cells.append(own(control, seed, control=True, **given))
            for attack in attacks:
                # not certain of what is recognised: that no defence is of what is not, raises no suspicion
                cells.append(attacked(control, [share] * CLASSES, attack, seed, 0.9, control=True, **given))
    return cells


def run(*cells: CellRecord, around: bool = True, **given: Any) -> RunRecord:
    """A run of these cells, with controls and anchors for their seeds and attacks."""
    seeds = sorted({one.seed for one in cells})
    attacks = list(dict.fromkeys(one.attack for one in cells if one.attack))
    all_cells = [*(surroundings(seeds, attacks) if around and attacks else []), *cells]
    found = conclude(all_cells, NEEDS, declared())
    environment = {"python": "3.11.7", "torch": "2.5.0", "threads": "1"}
    made = Environment(
        leakbench="0.2.0", numpy="2.1.0", numba="0.61.0", processor="AMD EPYC", device="cpu", artifacts=9, **environment
    )
    info = DatasetInfo(
        name="digits",
        classes=[str(c) for c in range(CLASSES)],
        train_images=1437,
        test_images=200,
        channels=1,
        height=8,
        width=8,
        source="by hand",
        fingerprint="0123456789abcdef",
    )
    plugins = [
        PluginInfo(kind="attack", name=name, version=1, summary="", cites="", needs=needs)
        for name, needs in NEEDS.items()
    ]
    fields: Mapping[str, Any] = {
        "leakbench": "0.2.0",
        "created": "2026-01-02T03:04:05Z",
        "seconds": 1.0,
        "command": "leakbench run",
        "complete": True,
        "grid": {},
        "environment": environment,
        "environments": [made],
        "datasets": [info],
        "judges": [],
        "plugins": plugins,
        "metrics": list(declared().values()),
        "synthetic": [],
    }
    return RunRecord(
        cells=all_cells, scales=found.scales, rows=found.rows, verdicts=found.verdicts, **(dict(fields) | given)
    )


def another_set(record: RunRecord) -> RunRecord:
    """The same run, of mnist."""
    return record.model_copy(
        update={
            "cells": [c.model_copy(update={"dataset": "mnist"}) for c in record.cells],
            "rows": [row.model_copy(update={"dataset": "mnist"}) for row in record.rows],
            "verdicts": [verdict.model_copy(update={"dataset": "mnist"}) for verdict in record.verdicts],
        }
    )

"""Runs whose verdicts are concluded from their cells, for comparisons and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from by_hand import declared, voted
from report_samples import anchor, cell, plain, record, scores, share

from leakbench.leakage.inversion.verdict import conclude
from leakbench.records import CellRecord, DatasetInfo, PluginInfo, RunRecord, Value

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCESS = {"guess": "LABELS", "invert": "WEIGHTS"}
Hits = Mapping[str, Mapping[str, Sequence[int] | None]]
HITS: Hits = {
    "strong": {"guess": (1, 0, 2, 1, 1, 0, 1, 2, 1, 1), "invert": (2, 1, 1, 2, 0, 1, 2, 1, 3, 1)},
    "weak": {"guess": (5, 6, 4, 5, 7, 5, 4, 6, 5, 5), "invert": (8, 7, 9, 8, 6, 8, 9, 7, 8, 9)},
    "weaker": {"guess": (5, 6, 5, 5, 7, 6, 4, 6, 5, 6), "invert": (8, 8, 9, 8, 7, 8, 9, 8, 8, 9)},
    "ann": {"guess": (6,) * 10, "invert": (9,) * 10},
    "han2020": {"guess": (6, 6, 7, 6, 5, 6, 7, 6, 6, 6), "invert": (9, 9, 8, 9, 9, 10, 9, 8, 9, 9)},
    "random": {"guess": (1, 1, 0, 1, 2, 1, 1, 2, 1, 2), "invert": (1, 2, 1, 0, 1, 1, 2, 1, 1, 1)},
}
"""defence -> attack -> hits of each class, out of ten"""
NOISE, REAL = (1, 1, 0, 1, 1, 2, 1, 1, 1, 0), (10, 10, 9, 10, 10, 10, 9, 10, 10, 10)
CONTROLS = ("ann", "han2020", "random")


def judged(hits: Sequence[int], confidence: float = 0.99) -> dict[str, Any]:
    confident = Value(metric="victim_confidence", value=confidence)
    known = [share("judge_accuracy", sum(hits)), plain("p_value", 0.0001 if sum(hits) > 20 else 0.5), confident]
    return {"values": known, "classes": scores(*hits), "votes": voted([hit / 10 for hit in hits])}


def run(hits: Hits = HITS, noise: Sequence[int] = NOISE, seeds: int = 1, **given: Any) -> RunRecord:
    """A run of these defences; ``ann``, ``han2020`` and ``random`` are its controls."""
    made: list[CellRecord] = []
    for seed in range(seeds):
        own: dict[str, Any] = {"seed": seed, "preset": "quick"}
        for at, (defense, attacks) in enumerate(hits.items()):
            control = {
                "control": defense in CONTROLS,
                "timesteps": 32,
                "artifacts": {"ann": f"ann-{seed}", "judge a": "judge"},
                **own,
            }
            values = [
                share("accuracy", 950 - (20 + seed) * at, 1000),
                plain("energy_ratio_int32", 5 + (1 + seed / 9) * at),
            ]
            made.append(cell(defense, values=values, **control))
            for attack, each in attacks.items():
                # controls that are not certain of what is recognised, so that no defence is suspected of decoys
                confidence = 0.9 if defense in CONTROLS else 0.99
                done = {"status": "failed", "reason": "broke"} if each is None else judged(each, confidence)
                made.append(cell(defense, attack, attack_name=attack, **done, **control))
        made += [anchor("noise", **judged(noise), **own), anchor("real", **judged(REAL), **own)]
    found = conclude(made, ACCESS, declared())
    plugins = [
        PluginInfo(kind="attack", name=name, version=1, summary="", cites="", needs=needs)
        for name, needs in ACCESS.items()
    ]
    info = DatasetInfo(
        name=made[0].dataset, classes=list(NAMES), train_images=1, test_images=1, channels=1, height=8, width=8,
        source="", fingerprint="f" * 64,
    )  # fmt: skip
    fields = {"rows": found.rows, "verdicts": found.verdicts, "scales": found.scales}
    return record(made, **({**fields, "plugins": plugins, "datasets": [info]} | given))


def renamed(made: RunRecord, names: Mapping[str, str], **given: str) -> RunRecord:
    """The run with other labels of defences and attacks, and ``given`` for its data set or model."""

    def other(one: Any) -> Any:
        labels = {key: names.get(getattr(one, key), getattr(one, key)) for key in ("defense", "attack")}
        return one.model_copy(update=labels | given)

    parts = {name: [other(one) for one in getattr(made, name)] for name in ("cells", "rows", "verdicts")}
    return made.model_copy(update=parts)

"""A run of the paper's suite, small."""

from __future__ import annotations

from typing import Any

from realistic_samples import ATTACKS
from report_samples import (
    DATASET,
    MODEL,
    anchor,
    cell,
    index,
    judged,
    plain,
    record,
    row,
    scale,
    share,
    verdict,
)

from leakbench.records import (
    CellRecord,
    DatasetInfo,
    RunRecord,
)


def made_at(steps: int, top: float) -> float:
    """An accuracy that rises with T towards ``top``."""
    return top - 0.6 / steps**0.9


def alone(
    label: str,
    accuracy: float,
    steps: int | None = None,
    params: dict[str, Any] | None = None,
    *,
    read: int = 0,
    ratio: float | None = None,
    seeds: int = 1,
    **given: Any,
) -> list[CellRecord]:
    """The defence's own cells, one a seed, each seed a little better than the one before."""
    cells = []
    for seed in range(seeds):
        correct = round(360 * min(1.0, max(0.0, accuracy)) + 2 * seed)
        values = [share("accuracy", min(360, correct), 360), share("ann_accuracy", 350 + seed, 360)]
        values.append(plain("training_images_read", read))
        if ratio:
            values += [plain("energy_ratio_int32", ratio + seed), plain("energy_ratio_fp32", ratio / 6)]
            values += [plain("energy_ratio_paper", ratio * 2.5), plain("energy_ratio_memory", ratio / 8)]
            values.append(plain("energy_ratio_quantized", ratio / 4))
        fields = {"seed": seed, "timesteps": steps, "defense_params": params or {}, "values": values}
        cells.append(cell(label, **(fields | given)))
    return cells


def under_attack(label: str, *hits: int, seeds: int = 1, **given: Any) -> list[CellRecord]:
    """reconversion, direct and inversion on a defence, each with that many hits of 100."""
    return [
        cell(label, attack, seed=seed, attack_name=attack, values=judged(count + seed, 160.0 - count - seed), **given)
        for seed in range(seeds)
        for attack, count in zip(ATTACKS, hits, strict=True)
    ]


def paper_suite(seeds: int = 1, dataset: str = DATASET, model: str = MODEL) -> RunRecord:
    """Methods of every kind, one that does not apply, data-free conversion over T and PrivateSNN over samples."""
    here: dict[str, Any] = {"dataset": dataset, "model": model}
    params = {"setting": "sound", "samples": 2000, "od": True, "lr": 1e-4, "dropout": None}
    given: dict[str, Any] = {"seeds": seeds} | here
    cells = [
        *alone("ann", 0.972, control=True, **given),
        *alone("random", 0.1, control=True, **given),
        *alone("zskd", 0.93, **given),
        cell("knowledge_within", status="not-applicable", reason="the network has no batch norm", **here),
        *alone("sengupta2019", 0.96, 64, read=512, ratio=3.1, **given),
        *alone("han2020", 0.965, 32, read=512, ratio=5.2, **given),
        *alone("tdbn", 0.955, 8, read=1437, ratio=9.4, **given),
        *alone("datafree", made_at(32, 0.97), 32, {"images": 512}, ratio=5.4, **given),
        *alone("privatesnn", 0.95, 32, params, ratio=5.9, **given),
        *alone("privatesnn[od=False]", 0.91, 32, {**params, "od": False}, ratio=6.8, **given),
    ]
    cells += [
        found
        for steps in (4, 8, 16, 64, 128)
        for found in (
            *alone(f"datafree[T={steps}]", made_at(steps, 0.97), steps, {"images": 512}, ratio=160 / steps, **given),
            *alone(f"sengupta2019[T={steps}]", made_at(steps / 4, 0.965), steps, read=512, **given),
        )
    ]
    for samples in (100, 500, 1000, 5000):
        for od, top in ((True, 0.955), (False, 0.93)):
            label = f"privatesnn[samples={samples},od={od}]"
            lost = (4 if od else 30) / samples
            cells += alone(label, top - lost, 32, {**params, "samples": samples, "od": od}, **given)
    hits = {
        "zskd": (40, 30, 71),
        "sengupta2019": (27, 16, 70),
        "han2020": (28, 17, 69),
        "tdbn": (12, 13, 31),
        "datafree": (27, 16, 70),
        "privatesnn": (26, 17, 68),
        "privatesnn[od=False]": (12, 14, 20),
    }
    for label, counts in hits.items():
        cells += under_attack(label, *counts, **given)
    cells += under_attack("random", 10, 9, 10, control=True, **given)
    cells += [
        anchor(name, seed=seed, values=judged(hit, far), **here)
        for seed in range(seeds)
        for name, hit, far in (("noise", 10, 140.0), ("real", 97, 9.0))
    ]
    outcomes = {"tdbn": "inconclusive", "privatesnn[od=False]": "resists"}
    rows = [
        row(label, attack, index(max(0.0, (count - 10) / 87)), leaks=count > 20, **here)
        for label, counts in hits.items()
        for attack, count in zip(ATTACKS, counts, strict=True)
    ]
    verdicts = [
        verdict(
            label,
            outcomes.get(label, "leaks"),
            "" if label == "tdbn" else "inversion",
            index=None if label == "tdbn" else index((counts[2] - 10) / 87),
            **here,
        )
        for label, counts in hits.items()
    ]
    info = DatasetInfo(
        name=dataset,
        classes=[str(label) for label in range(10)],
        train_images=1437,
        test_images=360,
        channels=1,
        height=8,
        width=8,
        source="scikit-learn, load_digits",
        fingerprint="sha256:5d1c0b7e",
    )
    return record(
        cells,
        rows=rows,
        verdicts=verdicts,
        scales=[scale(**here)],
        datasets=[info],
        grid={"suite": "paper"},
        command="leakbench run --suite paper",
    )

"""Records built by hand, and pictures for them: what a run would have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.motion import LayerMotion
from leakbench.records import (
    AttackRow,
    CellRecord,
    ClassIndex,
    ClassScore,
    DatasetInfo,
    Environment,
    Finding,
    Gate,
    Index,
    JudgeInfo,
    Picture,
    PluginInfo,
    RunRecord,
    Scale,
    SyntheticSet,
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
        "defense_name": defense.partition("[")[0],
    }
    return CellRecord(defense=defense, attack=attack, **(fields | given))


def anchor(name: str, **given: Any) -> CellRecord:
    return cell("", name, **({"defense_name": ""} | given))


def judged(successes: int, distance: float, n: int = 100) -> list[Value]:
    near = Value(metric="fd_cnn-a", value=distance, low=distance * 0.9, high=distance * 1.12, n=n)
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
        "grid": {"defense": ["privatesnn"], "attack": ["all"], "seeds": 1},
        "environment": {"python": "3.11.7", "torch": "2.6.0", "machine": "x86_64, 2 cores"},
        "datasets": [],
        "judges": [],
        "plugins": [],
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


# --- a whole run, as realistic as digits drawn from scikit-learn make it

ATTACKS = ("reconversion", "direct", "inversion")
# judge accuracy of 100 images, KES, distance, how much of a digit shows through noise; None: the cell failed
DRAWN: dict[str, tuple[tuple[int, float, float, float] | None, ...]] = {
    "sengupta2019": ((28, 0.17, 92, 0.45), (17, 0.12, 131, 0.15), (70, 0.21, 61, 0.75)),
    "datafree": ((27, 0.18, 95, 0.45), (16, 0.11, 133, 0.15), (70, 0.57, 60, 0.75)),
    "privatesnn": ((26, 0.15, 99, 0.4), (17, 0.10, 130, 0.15), (71, 0.59, 60, 0.75)),
    "privatesnn[od=false]": ((9, 0.10, 139, 0.05), None, (14, 0.11, 126, 0.2)),
    "ann": ((28, 0.18, 90, 0.45), (15, 0.12, 135, 0.15), (70, 0.60, 58, 0.8)),
    "han2020": ((27, 0.17, 93, 0.45), (16, 0.11, 134, 0.15), (69, 0.57, 61, 0.75)),
    "random": ((10, 0.10, 149, 0.02), (9, 0.09, 150, 0.0), (10, 0.10, 147, 0.02)),
}
CONTROLS = ("ann", "han2020", "random")
WORKS = {"reconversion": True, "direct": False, "inversion": True}


def realistic(run: Path) -> RunRecord:
    """Four defences and three controls under four attacks, with pictures, checks, findings, a failure, some not
    applicable and one without a signal."""
    generator = np.random.default_rng(7)
    spread = np.random.default_rng(8)
    digits = load_digits()
    by_label = [digits.images[digits.target == label] / 16 for label in range(10)]

    def pictures(folder: str, blend: float, blur: float, judged: bool = True) -> list[Picture]:
        """Digits of which a share ``blend`` shows through noise, and what judges may make of them."""
        made = []
        for label in range(10):
            clean = by_label[label][generator.integers(len(by_label[label]))]
            noisy = generator.random((8, 8))
            pixels = (
                gaussian_filter(blend * clean + (1 - blend) * noisy, blur)
                if blur
                else clean * blend + (1 - blend) * noisy
            )
            path = Path("images") / folder / f"{label}.png"
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(run / path)
            told = generator.random() < 0.1 + blend
            opinion = {
                "named": label if told else int(generator.integers(10)),
                "confidence": float(generator.uniform(0.3, 0.6) + 0.4 * blend),
            }
            made.append(Picture(path=path.as_posix(), target=label, **(opinion if judged else {})))
        return made

    def dealt(successes: int) -> list[ClassScore]:
        """The hits, dealt out to ten classes of ten images each."""
        return scores(*spread.multivariate_hypergeometric([10] * 10, successes).tolist())

    def alone(
        name: str,
        correct: int,
        seconds: float,
        read: int,
        ratio: float | None,
        motion: float | None,
        **given: Any,
    ) -> CellRecord:
        values = [share("accuracy", correct, 360), share("ann_accuracy", 351, 360)]
        values += [plain("training_images_read", read), plain("seconds", seconds)]
        energy = []
        if ratio:
            values += [
                plain("timesteps", 32),
                plain("energy_ratio_int32", ratio),
                plain("energy_ratio_fp32", ratio * 5.111 / 32),
                plain("energy_ratio_paper", ratio * 2.4),
                plain("energy_ratio_memory", ratio / 9),
                plain("energy_ratio_quantized", ratio * 0.21),
            ]
            energy = [
                LayerOperations("conv1", 18432, 64, 32 * 64 * 0.31, False, 1024),
                LayerOperations("conv2", 147456, 1024, 1024 * 1.7, False, 512),
                LayerOperations("fc1", 65536, 512, 512 * 0.9, False, 128),
                LayerOperations("fc2", 1280, 128, 128 * 1.1, False, 10),
            ]
        moved = []
        if motion is not None:
            values.append(plain("weight_cosine", 1 - motion))
            moved = [
                LayerMotion(layer, 1 - motion * k, 3 * motion * k)
                for k, layer in enumerate(("conv1", "conv2", "fc1", "fc2"), 1)
            ]
        return cell(name, values=values, energy=energy, motion=moved, timesteps=32 if ratio else None, **given)

    def measured(successes: int, kes: float, distance: float) -> list[Value]:
        shown = 1.2 * successes / 100
        return [
            *judged(successes, distance),
            Value(metric="kes", value=kes, low=max(0.0, kes - 0.04), high=kes + 0.04, n=360),
            share("daa", min(10, successes // 9), 10),
            plain("knn_distance", distance / 4),
            Value(metric="kd_cnn-a", value=(distance - 9) / 400, n=100),
            share("precision", min(100, int(90 * shown))),
            plain("density", shown * 0.8),
            share("coverage", min(100, int(70 * shown))),
            share("recall", min(100, int(60 * shown))),
        ]

    def found(successes: int, blend: float) -> list[Finding]:
        named = {"images won by the second restart": successes, "twin: correlation of logits": 0.6 + blend / 2}
        return [Finding(name=name, value=value) for name, value in named.items()]

    def attacked(
        defense: str, attack: str, successes: int, kes: float, distance: float, blend: float, **given: Any
    ) -> CellRecord:
        values = [*measured(successes, kes, distance), plain("p_value", 0.0001 if successes > 20 else 0.21)]
        values += [plain("gradient_steps", 300), plain("queries", 0)]
        values += [
            share("victim_accuracy", min(100, successes + 25)),
            share("victim_confidence", min(100, successes + 20)),
        ]
        values += [plain("seconds", 1.5 + 3 * blend)]
        shown = pictures(f"{defense}-{attack}", blend, 0.0 if attack == "direct" else 0.4)
        return cell(
            defense,
            attack,
            values=values,
            pictures=shown,
            classes=dealt(successes),
            attack_params={"steps": 300, "learning_rate": 0.05},
            findings=found(successes, blend) if attack == "inversion" else [],
            **given,
        )

    privatesnn = {"defense_params": {"setting": "sound", "epochs": 20, "timesteps": 32, "lam": 1.0, "od": True}}
    cells = [
        alone("sengupta2019", 347, 2.4, 512, 6.1, 0.0),
        alone("datafree", 338, 9.7, 0, 5.4, 0.0),
        alone("privatesnn", 341, 41.2, 0, 5.9, 0.0005, artifacts={"network": "3f9c" * 16}, **privatesnn),
        alone(
            "privatesnn[od=false]",
            319,
            37.9,
            0,
            6.8,
            0.011,
            warnings=["accuracy fell by 9 % against the ANN"],
        ),
        alone("ann", 351, 0.0, 0, None, None, control=True),
        alone("han2020", 348, 3.1, 512, 5.2, 0.0, control=True),
        alone("random", 37, 0.0, 0, None, None, control=True),
    ]
    rows = []
    for defense, drawn in DRAWN.items():
        control = defense in CONTROLS
        for attack, given in zip(ATTACKS, drawn, strict=True):
            if given is None:
                cells.append(
                    cell(
                        defense,
                        attack,
                        status="failed",
                        reason="NumericalError: direct made images with NaN or infinity",
                        traceback="Traceback (most recent call last):\n"
                        '  File "contracts.py", line 250, in __call__\n'
                        "leakbench.errors.NumericalError: direct made images with NaN or infinity\n",
                    )
                )
                continue
            cells.append(attacked(defense, attack, *given, control=control))
            rows.append(_realistic_row(defense, attack, *given[:3], cells[-1].classes))
        if defense != "random":
            reason = "the network has no batch norm"
            cells.append(cell(defense, "bn-inversion", control=control, status="not-applicable", reason=reason))
    reason = "constant network: it gives every image the same answer"
    cells.append(cell("random", "bn-inversion", control=True, status="no-signal", reason=reason))
    cells += [
        anchor("noise", values=measured(10, 0.1, 140), pictures=pictures("noise", 0.0, 0.0), classes=dealt(10)),
        anchor("real", values=measured(97, 0.81, 9), pictures=pictures("real", 1.0, 0.0), classes=dealt(97)),
        anchor("noise (fresh draw)", of="noise", values=measured(11, 0.1, 141)),
        anchor("real (fresh draw)", of="real", values=measured(96, 0.8, 10)),
        cell("privatesnn", "inversion (half the steps)", of="inversion", values=[share("judge_accuracy", 66)]),
    ]
    verdicts = [
        verdict(
            defense,
            index=next(found.indices[0] for found in rows if (found.defense, found.attack) == (defense, "inversion")),
            reason="inversion tells its classes far better than chance (p < .001) and no worse than on the unprotected "
            "conversion, at 300 gradient steps and 0 queries in 3.8 s.",
        )
        for defense in ("sengupta2019", "datafree", "privatesnn")
    ]
    verdicts.append(
        verdict(
            "privatesnn[od=false]",
            "resists",
            index=next(r.indices[0] for r in rows if (r.defense, r.attack) == ("privatesnn[od=false]", "inversion")),
            reason="inversion, the worst of 2 valid attacks, is no better than chance (p = .31), at 300 gradient steps "
            "and 0 queries in 3.8 s. The unprotected conversion leaks to it at .68.",
        )
    )
    plugin = {
        "privatesnn": "Data-free conversion, then encryption training with distillation",
        "datafree": "Threshold search on synthetic images only",
        "sengupta2019": "Spike-Norm: thresholds from training images, layer by layer",
    }
    return record(
        cells,
        rows=rows,
        verdicts=verdicts,
        scales=[
            scale(fresh_noise=index(0.01, 0.03), fresh_real=index(0.99, 0.03)),
            scale(
                "kes",
                noise=Value(metric="kes", value=0.10, low=0.08, high=0.12, n=1080),
                real=Value(metric="kes", value=0.81, low=0.79, high=0.83, n=1080),
                fresh_noise=index(0.0, 0.03, "kes"),
                fresh_real=index(0.98, 0.03, "kes"),
            ),
            scale(
                "fd_cnn-a",
                noise=Value(metric="fd_cnn-a", value=140, low=131, high=148, n=100),
                real=Value(metric="fd_cnn-a", value=9.0, low=8.1, high=10.1, n=100),
                fresh_noise=index(0.09, 0.04, "fd_cnn-a", n=100),
                fresh_real=index(0.93, 0.08, "fd_cnn-a", n=100),
            ),
        ],
        datasets=[
            DatasetInfo(
                name=DATASET,
                classes=[str(label) for label in range(10)],
                train_images=1437,
                test_images=360,
                channels=1,
                height=8,
                width=8,
                source="scikit-learn, load_digits",
                fingerprint="sha256:5d1c0b7e",
            )
        ],
        judges=[
            JudgeInfo(
                name=name,
                dataset=DATASET,
                summary=summary,
                accuracy=share("accuracy", correct, 360),
                corrupted=share("accuracy", correct - 31, 360),
            )
            for name, summary, correct in (
                ("cnn-a", "three convolutions, shifts and noise", 352),
                ("mlp-augmented", "two hidden layers, strong augmentation", 347),
                ("ensemble", "mean of the above over shifts by one pixel", 355),
            )
        ],
        plugins=[
            *(
                PluginInfo(kind="defense", name=name, version=1, summary=text, cites="Kim et al., AAAI 2022")
                for name, text in plugin.items()
            ),
            PluginInfo(
                kind="attack",
                name="inversion",
                version=1,
                summary="Strong activation maximisation on the ReLU network",
                cites="Yin et al., CVPR 2020",
                needs="WEIGHTS",
            ),
        ],
        synthetic=[
            SyntheticSet(
                key="9ab1" * 16,
                dataset=DATASET,
                model=MODEL,
                seed=0,
                params={"beta": 10.0, "steps": 300},
                count=500,
                teacher_agreement=0.918,
                pictures=pictures("synthetic", 0.35, 0.3, judged=False),
            )
        ],
    )


def _realistic_row(
    defense: str, attack: str, successes: int, kes: float, distance: float, apart: list[ClassScore]
) -> AttackRow:
    def between(value: float, noise: float, real: float) -> float:
        return min(1.0, max(0.0, (value - noise) / (real - noise)))

    classes = [
        ClassIndex(target=found.target, value=value, low=max(0.0, value - 0.25), high=min(1.0, value + 0.2))
        for found in apart
        for value in (between(found.value, 0.1, 0.97),)
    ]
    classes[8] = ClassIndex(target=8, value=None)
    indices = [
        index(between(successes / 100, 0.1, 0.97), 0.11, classes=classes, null="noise"),
        index(between(kes, 0.1, 0.81), 0.05, "kes", null="noise"),
        index(between(-distance, -140, -9), 0.06, "fd_cnn-a", n=100, null="noise"),
        index(None, metric="recall", reason="noise images score .06, real images .05"),
    ]
    if not WORKS[attack]:
        reason = "on han2020, the unprotected conversion, its images are no better than noise (p = .21)"
        return row(
            defense,
            attack,
            *indices,
            validity="invalid",
            reason=reason,
            leaks=False,
            p=0.21,
            gates=[
                Gate(name="G1", passed=False, reason=reason),
                *gates(G4=None, G5=None)[1:],
            ],
        )
    trained, leaks = defense != "random", successes > 20
    told = [
        Gate(name="G1", passed=True, reason="on han2020 p = .0001"),
        Gate(name="G2", passed=True, reason="on random p = .63"),
        Gate(name="G3", passed=trained, reason=f"{min(100, successes + 20)} of 100 images above .9 on the victim"),
        Gate(name="G4", passed=attack == "inversion" or None, reason="half the steps: .66, all: .71"),
        Gate(name="G5", passed=None, reason="no attack with less access in this run"),
    ]
    return row(
        defense,
        attack,
        *indices,
        validity="valid" if trained else "optimisation failure",
        reason="" if trained else "the victim itself is not sure of its images",
        leaks=leaks,
        p=0.0001 if leaks else 0.31,
        gates=told,
        seconds=2.6 if attack == "reconversion" else 3.8,
    )


MANY = (
    *("inversion", "analog_twin", "decrypt", "surrogate_zoo", "generative_prior", "extraction", "evolution"),
    *("label_only", "direct", "reconversion", "spsa"),
)


def many_attacks(run: Path) -> RunRecord:
    """One defence and three controls under eleven attacks: a run with `--attack all`, each with pictures of its own."""
    made = realistic(run)
    kept = ("privatesnn", *CONTROLS)
    sources = {name: ATTACKS[number % 3] if name not in ATTACKS else name for number, name in enumerate(MANY)}

    def turned(picture: Picture, quarters: int, folder: str) -> Picture:
        path = Path("images") / folder / Path(picture.path).name
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(run / picture.path) as opened:
            opened.rotate(17 * quarters, fillcolor=128).save(run / path)
        return picture.model_copy(update={"path": path.as_posix()})

    def under(name: str, number: int, one: CellRecord) -> CellRecord:
        pictures = [turned(picture, number, f"{one.defense}-{name}") for picture in one.pictures]
        return one.model_copy(update={"attack": name, "attack_name": name, "pictures": pictures})

    rows = {(one.defense, one.attack): one for one in made.rows}
    cells = {(one.defense, one.attack): one for one in made.cells}
    places = [(defense, name) for defense in kept for name in MANY]
    return made.model_copy(
        update={
            "cells": [one for one in made.cells if not one.defense or (one.defense in kept and not one.attack)]
            + [under(name, MANY.index(name), cells[label, sources[name]]) for label, name in places],
            "rows": [rows[label, sources[name]].model_copy(update={"attack": name}) for label, name in places],
            "verdicts": [one for one in made.verdicts if one.defense in kept],
        }
    )


# --- a run of the paper's suite, small


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

"""Records built by hand, and pictures for them: what a run would have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from leakbench.bench.records import (
    CellRecord,
    ClassScore,
    DatasetInfo,
    JudgeInfo,
    Picture,
    PluginInfo,
    RunRecord,
    SyntheticSet,
    Value,
)
from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.motion import LayerMotion

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
    return [ClassScore(target=target, hits=count, n=n) for target, count in enumerate(hits)]


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
    }
    return RunRecord(cells=cells, **(fields | given))


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
        ]
    )


# --- a whole run, as realistic as digits drawn from scikit-learn make it

ATTACKS = ("reconversion", "direct", "inversion")


def realistic(run: Path) -> RunRecord:
    """Four defences and two controls under four attacks, with pictures, a failure and some not applicable."""
    generator = np.random.default_rng(7)
    spread = np.random.default_rng(8)
    digits = load_digits()
    by_class = [digits.images[digits.target == label] / 16 for label in range(10)]

    def pictures(folder: str, blend: float, blur: float) -> list[Picture]:
        """Digits of which a share ``blend`` shows through noise."""
        made = []
        for label in range(10):
            clean = by_class[label][generator.integers(len(by_class[label]))]
            noisy = generator.random((8, 8))
            pixels = (
                gaussian_filter(blend * clean + (1 - blend) * noisy, blur)
                if blur
                else clean * blend + (1 - blend) * noisy
            )
            path = Path("images") / folder / f"{label}.png"
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(run / path)
            made.append(Picture(path=path.as_posix(), target=label))
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

    def attacked(defense: str, attack: str, successes: int, distance: float, blend: float, **given: Any) -> CellRecord:
        values = [*judged(successes, distance), plain("gradient_steps", 300), plain("queries", 0)]
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
        alone("random", 37, 0.0, 0, None, None, control=True),
    ]
    table = {
        "sengupta2019": ((28, 92, 0.45), (17, 131, 0.15), (70, 61, 0.75)),
        "datafree": ((27, 95, 0.45), (16, 133, 0.15), (70, 60, 0.75)),
        "privatesnn": ((26, 99, 0.4), (17, 130, 0.15), (71, 60, 0.75)),
        "privatesnn[od=false]": ((16, 126, 0.2), None, (68, 66, 0.7)),
        "ann": ((28, 90, 0.45), (15, 135, 0.15), (70, 58, 0.8)),
        "random": ((10, 149, 0.02), (9, 150, 0.0), (10, 147, 0.02)),
    }
    for defense, row in table.items():
        for attack, given in zip(ATTACKS, row, strict=True):
            control = defense in ("ann", "random")
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
            else:
                cells.append(attacked(defense, attack, *given, control=control))
        if defense == "ann":
            cells.append(
                cell(
                    defense,
                    "bn-inversion",
                    control=True,
                    status="not-applicable",
                    reason="the network has no batch norm",
                )
            )
        elif defense != "random":
            cells.append(cell(defense, "bn-inversion", status="not-applicable", reason="the network has no batch norm"))
    cells += [
        anchor("noise", values=judged(10, 140.0), pictures=pictures("noise", 0.0, 0.0), classes=dealt(10)),
        anchor("real", values=judged(97, 9.0), pictures=pictures("real", 1.0, 0.0), classes=dealt(97)),
    ]
    plugin = {
        "privatesnn": "Data-free conversion, then encryption training with distillation",
        "datafree": "Threshold search on synthetic images only",
        "sengupta2019": "Spike-Norm: thresholds from training images, layer by layer",
    }
    return record(
        cells,
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
            JudgeInfo(name="cnn-a", dataset=DATASET, seed=11, accuracy=share("accuracy", 352, 360)),
            JudgeInfo(name="mlp-augmented", dataset=DATASET, seed=12, accuracy=share("accuracy", 347, 360)),
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
                pictures=pictures("synthetic", 0.35, 0.3),
            )
        ],
    )

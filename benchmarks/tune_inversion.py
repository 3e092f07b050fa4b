"""How the defaults of the optimising attacks were chosen: each setting by itself, on networks that protect nothing.

python benchmarks/tune_inversion.py --cache CACHE --dataset cifar10 --model vgg5 --precision bfloat16 --features FILE

Runs `inversion` on ANNs and their plain conversions (never on a defence) with one setting changed at a time, and writes
docs/results/search-DATASET.md with pictures. Networks and evaluation models are kept in CACHE.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import result_page
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from leakbench.attacks.inversion import Inversion
from leakbench.attacks.search import SearchParams
from leakbench.bench.grid import SIZES, make_config
from leakbench.bench.plan import plan
from leakbench.bench.stages.victim import built_victim
from leakbench.cells import UtilityCell
from leakbench.contracts import Access, AttackContext, Victim
from leakbench.leakage.inversion.evaluation import Evaluation, evaluation_of
from leakbench.metrics.kernel import kernel_estimate, kernel_reference
from leakbench.metrics.squeezenet import SqueezeNetFeatures
from leakbench.models.training import predict
from leakbench.runtime.process import tune_process
from leakbench.runtime.workspace import Settings, Workspace

Change = Mapping[str, Any]
CHANGES: Sequence[Change] = [
    {},
    # nearly the search of before colours had axes: steps as long along each, and the weight of before
    {"chroma": 1.0, "total_variation": 0.015},
    *({"chroma": length} for length in (1.0, 0.5, 0.1)),
    *({"total_variation": weight} for weight in (0.0, 0.01, 0.03, 0.06, 0.1, 0.3)),
    *({"lr": rate} for rate in (0.03, 0.05, 0.1, 0.2)),
    *({"coarse": share} for share in (0.0, 0.25, 0.5, 0.75)),
    *({"jitter": pixels} for pixels in (0, 1, 2, 4)),
    *({"blur": sigma} for sigma in (0.0, 1.0)),
    *({"loss": loss} for loss in ("margin", "poincare", "logit")),
]
VICTIMS = ("ann", "han2020")
REAL = 2000
"""test images that the distance is to, at most"""
SIDE = 64
"""pixels of a picture on the sheet"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--features", type=Path, help="SqueezeNet's weights: without, no distance is measured")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--model")
    parser.add_argument("--timesteps", type=int)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    tune_process()
    options = {name: getattr(given, name) for name in ("dataset", "model", "timesteps", "precision", "preset", "seeds")}
    options = {name: value for name, value in options.items() if value is not None}
    config = make_config({**options, "defense": "han2020", "attack": "inversion"})
    workspace = Workspace(Settings(given.cache, precision=given.precision), lambda _what, _done, _total: None)
    cells = [cell for cell in plan(config) if type(cell) is UtilityCell and cell.defense.name in VICTIMS]
    evaluation, scorer = evaluation_of(workspace, given.dataset), None
    if given.features:
        scorer = _Distance(SqueezeNetFeatures(given.features), evaluation.real.images)
    classes = workspace.dataset(given.dataset).classes
    defaults = Inversion(**Inversion.presets.get(given.preset, {})).params.model_copy(update={"restarts": 1})
    rows, shown = [], []
    for change in _distinct(defaults):
        row = [_title(change, defaults)]
        for victim in VICTIMS:
            scores = []
            for cell in (cell for cell in cells if cell.defense.name == victim):
                images, targets, confidence = _drawn(workspace, cell, defaults.model_copy(update=change))
                distance = [scorer(images)] if scorer else []
                scores.append([*_recognised(evaluation, images, targets), confidence, *distance])
            row += [_text(value) for value in torch.tensor(scores).mean(0).tolist()]
        rows.append(row)
        shown.append((row[0], images[:: len(images) // len(classes)]))
        print(*row, sep="  ", flush=True)
    name = f"search-{given.dataset}"
    _sheet(shown).save(result_page.RESULTS / f"{name}.png", optimize=True)
    measures = ["accepted", "p(class)", "confidence", *(["distance"] if scorer else [])]
    heading = ["setting", *(f"`{victim}`: {what}" for victim in VICTIMS for what in measures)]
    asked = [f"--{name} {value}" for name, value in options.items() if value != parser.get_default(name)]
    asked += ["--features FILE"] if given.features else []
    command = " ".join(["python benchmarks/tune_inversion.py --cache CACHE", *asked])
    result_page.write(
        f"{name}.md", f"How the search's defaults were chosen on {given.dataset}",
        _ABOUT.format(networks=given.seeds, images=len(targets), steps=defaults.iterations),
        result_page.of_now(command),
        result_page.table(heading, rows), f"A picture of each class, settings from top to bottom as above, of a "
        f"`{VICTIMS[-1]}`:", f"![The pictures]({name}.png)",
    )  # fmt: skip


_ABOUT = (
    "`inversion` with one setting changed at a time, on {networks} ANNs and their plain conversions, {images} images "
    "each, one start, {steps} steps. *Accepted*: share in which the evaluation models see the class; *p(class)*: "
    "their mean probability of it; *confidence*: the victim's; *distance*: the kernel distance to test images in "
    "features of SqueezeNet. No defence was looked at. Networks and evaluation models are those of the first seeds of "
    "a run at the preset quick: there the attack is measured on networks on which it was chosen."
)


def _distinct(defaults: SearchParams) -> list[Change]:
    """The changes that are any, and first of all none."""
    given = defaults.model_dump()
    return [change for change in CHANGES if not change or any(given[name] != value for name, value in change.items())]


def _title(change: Change, defaults: SearchParams) -> str:
    return ", ".join(f"{name} {value} ({getattr(defaults, name)})" for name, value in change.items()) or "defaults"


def _drawn(workspace: Workspace, cell: UtilityCell, params: SearchParams) -> tuple[Tensor, Tensor, float]:
    """uint8 images [N, C, H, W], the class [N] that each was made for, and the victim's mean probability of it."""
    data, network = workspace.dataset(cell.dataset), built_victim(workspace, cell).deployed.network
    targets = torch.arange(len(data.classes)).repeat_interleave(SIZES[cell.preset].images_per_class)
    context = AttackContext(torch.Generator().manual_seed(cell.seed), flips=data.flips)
    made = Inversion(**params.model_dump())(Victim(network, Access.WEIGHTS), targets, context)
    images = (made.images * 255).round().to(torch.uint8)
    confidence = predict(network, images, workspace.device).softmax(1).gather(1, targets[:, None])
    return images, targets, float(confidence.mean())


def _recognised(evaluation: Evaluation, images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Share of images in which the evaluation models see their class, and the mean probability that they give it."""
    answers = torch.cat([evaluation.ensemble.answers(part.float() / 255) for part in images.split(100)])
    probabilities, evidence = answers[:, :-1], answers[:, -1]
    seen = (probabilities.argmax(1) == targets) & (evidence >= evaluation.least_evidence)
    return float(seen.float().mean()), float(probabilities.gather(1, targets[:, None]).mean())


class _Distance:
    """Images -> their kernel distance to real ones."""

    def __init__(self, network: SqueezeNetFeatures, real: Tensor) -> None:
        self._network = network
        self._real = kernel_reference(self._features(real[:REAL]))

    def __call__(self, images: Tensor) -> float:
        return kernel_estimate(self._features(images), self._real).value

    def _features(self, images: Tensor) -> Tensor:
        return torch.cat([self._network.features(part.float() / 255) for part in images.split(200)]).double()


def _sheet(shown: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """A row for each setting, a column for each class."""
    columns, line = len(shown[0][1]), 14
    sheet = Image.new("RGB", (columns * (SIDE + 2), len(shown) * (SIDE + line)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (title, images) in enumerate(shown):
        top = row * (SIDE + line)
        draw.text((0, top), title, fill="black")
        for column, pixels in enumerate(images):
            picture = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).convert("RGB")
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (column * (SIDE + 2), top + line))
    return sheet


def _text(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


if __name__ == "__main__":
    main()

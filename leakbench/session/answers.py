"""What a network that is to be audited makes of its data set, before anything attacks it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from leakbench.bench.grid import GridConfig, default_model
from leakbench.contracts import ModuleNetwork
from leakbench.data import Dataset, load_dataset
from leakbench.errors import UsageError, printable
from leakbench.leakage.inversion.gates import CONFIDENT
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import proportion
from leakbench.models.simulation import simulated
from leakbench.models.storage import build_ann
from leakbench.models.training import predict
from leakbench.models.weights import load_checkpoint
from leakbench.runtime.process import device_here
from leakbench.session.audits import Network
from leakbench.snn import SpikingNetwork

log = logging.getLogger("leakbench")

IMAGES, PER_CLASS = 300, 5
"""test images that it is asked about, at most: of many classes so many each"""
ENOUGH = 100
"""test images that tell a network that knows something from a guess: of fewer it is refused only if clearly one"""
UNSURE = 0.5
"""mean confidence in images that it knows, below which outputs may be no logits"""
_NAMES = 10


def check_shapes(network: Network, snn: str, dataset: str, image_shape: tuple[int, int, int], classes: int) -> None:
    """UsageError, one line, where the network takes other images than the data set's or has other classes."""
    takes, has = (network.image_shape, network.classes), (image_shape, classes)
    if takes != has:
        raise UsageError(
            f"--snn {snn}: it takes images {_shape(*takes)}, and those of {dataset} are {_shape(*has)}: "
            "--dataset must be what it was trained on"
        )


def check_answers(network: Network, snn: str, dataset: str, data: Path | None, device: torch.device) -> None:
    """UsageError, one line, where what would be audited is not what was trained; a warning where it is sure of nothing.

    That is a network that takes other images than the data set's or has other classes, that calls classes by each
    other's names, or that classifies test images hardly better than a guess: the upper 95 % limit is hardly above it,
    or the lower one is not, though there are many images.
    """
    private = load_dataset(dataset, data)
    check_shapes(network, snn, dataset, private.image_shape, len(private.classes))
    images, labels = _some(private)
    network = network.to(device)
    if isinstance(network, SpikingNetwork):
        steps = network.config.timesteps
        logits, _ = simulated(network, images, 0, (steps,), device, lambda *_: None)[steps]
    else:
        if isinstance(network, ModuleNetwork):
            network.reseed(0)
        logits = predict(network, images, device)
    logits = logits.cpu()
    right, chance = accuracy(logits, labels), 1 / len(private.classes)
    _check_names(f"--snn {snn}", logits, labels, private.classes)
    known = len(labels) < ENOUGH or right.low > chance
    if not known or right.high < min(2 * chance, chance + 0.1):
        raise UsageError(
            f"--snn {snn}: it classifies {right.value:.0%} of {len(labels)} test images correctly, and a guess "
            f"{chance:.0%}, so this is not the network that was trained: check its settings (input, neurons, readout), "
            f"the order of its classes ({_named(private.classes)}) and --dataset"
        )
    certain = logits.double().softmax(1).amax(1)[logits.argmax(1) == labels].mean().item()
    if certain < UNSURE:
        log.warning(
            f"--snn {snn}: its mean confidence in test images that it classifies correctly is {certain:.2f}; an attack "
            f"that finds nothing counts as failed where the network is not sure of its images (above {CONFIDENT:g}). "
            "Are its outputs logits, and readout.over and scale those that it was trained with?"
        )


def check_ann(grid: GridConfig, data: Path | None, device: str) -> None:
    """UsageError, one line, where a run's own ANN calls classes by each other's names; a warning where it knows none.

    Where it stands for several data sets or models nothing is asked.
    """
    if grid.ann is None or len(grid.dataset) > 1 or len(grid.model) > 1:
        return
    (name,) = grid.dataset
    private = load_dataset(name, data)
    model = grid.model[0] if grid.model else default_model(name, grid.preset)
    ann = build_ann(model, private.image_shape, len(private.classes), private.input_range)
    load_checkpoint(Path(grid.ann), ann)
    images, labels = _some(private)
    here = torch.device(device_here(device))
    logits = predict(ann.to(here).eval().requires_grad_(False), images, here)
    shown = f"--ann {Path(grid.ann).name}"
    _check_names(shown, logits, labels, private.classes)
    if (right := accuracy(logits, labels)).low <= 1 / len(private.classes):
        log.warning(
            f"{shown}: it classifies {right.value:.0%} of {len(labels)} test images correctly, a guess "
            f"{1 / len(private.classes):.0%}: are its weights trained, and its outputs in the order of the data set's "
            f"classes ({_named(private.classes)})?"
        )


def _some(private: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Test images that a network is asked about, and their labels."""
    count = max(IMAGES, PER_CLASS * len(private.classes))
    order = torch.randperm(len(private.test), generator=torch.Generator().manual_seed(0))[:count]
    return private.test.images[order], private.test.labels[order]


def _named(classes: Sequence[str]) -> str:
    return printable(", ".join(classes[:_NAMES]) + (", ..." if len(classes) > _NAMES else ""))


def _check_names(given: str, logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> None:
    """UsageError where classes are called by each other's names."""
    answers = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    answers.index_put_((labels, logits.argmax(1)), torch.ones((), dtype=torch.int64), accumulate=True)
    if renamed := _exchanged(answers):
        called = [f"{classes[shown]} is called {classes[said]}" for shown, said in renamed.items()]
        more = ", ..." if len(called) > _NAMES else ""
        raise UsageError(
            f"{given}: it calls classes by each other's names ({printable(', '.join(called[:_NAMES]))}{more}): its "
            f"outputs must be in the order of the data set's classes, {_named(classes)}"
        )


def _exchanged(answers: torch.Tensor) -> dict[int, int]:
    """Classes that are called by each other's names in closed circles, as 0 is called 1 and 1 0: shown -> said.

    ``answers`` [classes, classes] counts images: shown, said. A name counts that most of a class's images get, by the
    lower 95 % limit: classes that a network only mistakes for each other do not get that far.
    """
    said = {
        shown: int(row.argmax())
        for shown, row in enumerate(answers)
        if row.sum() and proportion(int(row.max()), int(row.sum())).low > 0.5
    }
    renamed: dict[int, int] = {}
    for first in said:
        circle: dict[int, int] = {}
        shown = first
        while shown in said and shown not in circle:
            circle[shown] = said[shown]
            shown = said[shown]
        if shown == first and len(circle) > 1:
            renamed |= circle
    return renamed


def _shape(image: tuple[int, int, int], classes: int) -> str:
    return f"{list(image)} of {classes} classes"

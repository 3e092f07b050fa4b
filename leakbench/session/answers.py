"""What a network that is to be audited makes of its data set, before anything attacks it."""

from __future__ import annotations

from pathlib import Path

import torch

from leakbench.contracts import ModuleNetwork
from leakbench.data import load_dataset
from leakbench.errors import UsageError, printable
from leakbench.metrics.accuracy import accuracy
from leakbench.models.simulation import simulated
from leakbench.models.training import predict
from leakbench.session.audits import Network
from leakbench.snn import SpikingNetwork

IMAGES = 300
"""test images that it is asked about, at most"""
_NAMES = 10


def check_answers(network: Network, snn: str, dataset: str, data: Path | None, device: torch.device) -> None:
    """UsageError, one line, where the network takes other images than the data set's, has other classes, or classifies
    test images hardly better than a guess, by the upper 95 % limit: what would be audited is not what was trained."""
    private = load_dataset(dataset, data)
    takes, has = (network.image_shape, network.classes), (private.image_shape, len(private.classes))
    if takes != has:
        raise UsageError(
            f"--snn {snn}: it takes images {_shape(*takes)}, and those of {dataset} are {_shape(*has)}: "
            "--dataset must be what it was trained on"
        )
    order = torch.randperm(len(private.test), generator=torch.Generator().manual_seed(0))[:IMAGES]
    images, labels = private.test.images[order], private.test.labels[order]
    network = network.to(device)
    if isinstance(network, SpikingNetwork):
        steps = network.config.timesteps
        logits, _ = simulated(network, images, 0, (steps,), device, lambda *_: None)[steps]
    else:
        if isinstance(network, ModuleNetwork):
            network.reseed(0)
        logits = predict(network, images, device)
    right, chance = accuracy(logits, labels), 1 / len(private.classes)
    if right.high >= min(2 * chance, chance + 0.1):
        return
    predicted = logits.argmax(1).cpu()
    names = ", ".join(private.classes[:_NAMES]) + (", ..." if len(private.classes) > _NAMES else "")
    table = torch.zeros(len(private.classes), len(private.classes))
    table.index_put_((predicted, labels), torch.ones(()), accumulate=True)
    likely = (
        f"renaming its outputs would make that {float(table.amax(1).sum()) / len(labels):.0%}: are its classes in this "
        f"order? {names}"
        if float(table.amax(1).sum()) > len(labels) / 2
        else f"check its settings (input, neurons, readout), the order of its classes ({names}) and --dataset"
    )
    raise UsageError(
        f"--snn {snn}: it classifies {right.value:.0%} of {len(labels)} test images correctly, and a guess "
        f"{chance:.0%}, so this is not the network that was trained: {printable(likely)}"
    )


def _shape(image: tuple[int, int, int], classes: int) -> str:
    return f"{list(image)} of {classes} classes"

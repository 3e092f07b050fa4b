"""A network that does not know its data set is not attacked."""

from __future__ import annotations

import pytest
import torch

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.data import load_dataset
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann
from leakbench.session.answers import check_answers
from leakbench.snn import SpikingConfig, SpikingNetwork

CPU = torch.device("cpu")


def _nearest_mean(order: list[int], scale: float = 1.0) -> ImageClassifier:
    """Answers the class, in that order, whose mean image is nearest."""
    data = load_dataset("digits")
    images = data.train.images.flatten(1).float() / 255
    means = torch.stack([images[data.train.labels == label].mean(0) for label in order])
    ann = build_ann("graph: conv 1 k1x1; relu; flatten; linear 10 b", (1, 8, 8), 10, InputRange(0, 1))
    same, weight, bias = ann.body.parameters()
    with torch.no_grad():
        same.fill_(1)
        weight.copy_(scale * means)
        bias.copy_(-scale * (means**2).sum(1) / 2)
    return ann.requires_grad_(False)


def _checked(network: SpikingNetwork | ImageClassifier, dataset: str = "digits") -> str:
    """What is wrong; empty where nothing is."""
    try:
        check_answers(network, "net.nir", dataset, None, CPU)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("spiking", [False, True])
def test_only_a_network_that_knows_its_classes_passes(spiking: bool) -> None:
    def made(ann: ImageClassifier) -> SpikingNetwork | ImageClassifier:
        if not spiking:
            return ann
        network = SpikingNetwork.from_ann(ann, SpikingConfig(16))
        network.neurons[0].threshold.fill_(1.0)
        return network

    digits = list(range(10))
    assert _checked(made(_nearest_mean(digits))) == ""
    renamed = _checked(made(_nearest_mean([*digits[1:], 0])))
    assert renamed.startswith("--snn net.nir: it classifies ") and "a guess 10%" in renamed
    assert "are its classes in this order? 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in renamed
    assert "check its settings (input, neurons, readout)" in _checked(made(_nearest_mean(digits, scale=0.0)))


def test_only_what_takes_the_data_sets_images_passes() -> None:
    assert "those of digits:half are [1, 8, 8] of 5 classes" in _checked(_nearest_mean(list(range(10))), "digits:half")

"""What a plugin is tried on in seconds: a small network trained on the digits, its conversion, images for metrics.

For the tests of plugins and for :mod:`leakbench.bench.plugin_check`: no numbers of a network this small mean anything.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor

from leakbench.contracts import Context, ImageClassifier
from leakbench.data import Dataset, default_data_folder, load_dataset
from leakbench.leakage.halves import halves
from leakbench.metrics.reconstructions import Features, RealImages, Reconstructions, some_of_each
from leakbench.models.storage import build_ann
from leakbench.models.training import UNCHANGED, Recipe, predict, train
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds

DATASET = "digits"
TIMESTEPS = 16
_CPU = torch.device("cpu")
_RECIPE = Recipe(steps=225, batch_size=32, lr=0.1, schedule="one-cycle", augmentation=UNCHANGED)


@cache
def trial_data() -> Dataset:
    """The 1797 digits of 8x8 pixels, loaded once a process."""
    return load_dataset(DATASET, default_data_folder())


def trial_ann(model: str = "vgg4", seed: int = 0) -> ImageClassifier:
    """A model trained on the digits for a few epochs; ``vgg4`` is more than 90 % right. Each call gives a copy."""
    return copy.deepcopy(_trained(model, seed))


@cache
def _trained(model: str, seed: int) -> ImageClassifier:
    data, generator = trial_data(), torch.Generator().manual_seed(seed)
    ann = build_ann(model, data.image_shape, len(data.classes), data.input_range, generator)
    train(ann, data.train.images, data.train.labels, _RECIPE, generator, _CPU, "training the ANN")
    ann.zero_grad()
    return ann.requires_grad_(False)


def trial_network(ann: ImageClassifier, timesteps: int = TIMESTEPS) -> SpikingNetwork:
    """The conversion of an ANN on some training images, without protection."""
    network = SpikingNetwork.from_ann(ann, SpikingConfig(timesteps))
    balance_thresholds(network, trial_data().train.images[:100].float() / 255, seed=0)
    return network.requires_grad_(False)


def trial_images(per_class: int = 4) -> tuple[Tensor, Tensor]:
    """Real images uint8 [N, 1, 8, 8], so many of each class, and their labels [N]: none that metrics compare with."""
    data = trial_data()
    anchors, _ = halves(data.test.labels)
    images, labels = data.test.images[anchors], data.test.labels[anchors]
    picked = some_of_each(labels, per_class, torch.Generator().manual_seed(0))
    return images[picked], labels[picked]


def trial_reconstructions(images: Tensor, targets: Tensor, ann: ImageClassifier) -> Reconstructions:
    """Images uint8 [N, C, H, W] made for the classes ``targets`` [N], as a metric is handed those of an attack.

    ``ann`` takes the place of the evaluation models; its logits are the features.
    """
    data = trial_data()

    def features(shown: Tensor) -> Features:
        return Features("logits", lambda: predict(ann, shown, _CPU))

    probabilities = predict(ann, images, _CPU).softmax(1)
    train_features, own = features(data.train.images), features(images)
    _, others = halves(data.test.labels)
    test_images, test_labels = data.test.images[others], data.test.labels[others]
    real_features = features(test_images)
    real = RealImages(
        test_images, test_labels, real_features, real_features, data.train.images, data.train.labels, train_features
    )
    accepted = probabilities.amax(1) > 0.5
    context = Context(torch.Generator().manual_seed(0), _CPU)
    return Reconstructions(images, targets, probabilities, accepted, own, own, real, context)

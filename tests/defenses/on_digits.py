"""What the tests of defences do with the digits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leakbench.contracts import DefenseContext, ImageClassifier, TrainingData
from leakbench.data import Dataset
from leakbench.snn import SpikingNetwork


def protect(
    defense: Any, ann: ImageClassifier, data: TrainingData, timesteps: int = 8, seed: int = 4
) -> SpikingNetwork:
    network = defense(ann, data, DefenseContext(torch.Generator().manual_seed(seed), timesteps=timesteps))
    assert isinstance(network, SpikingNetwork)
    return network


def sampled(digits: Dataset, count: int, seed: int = 4) -> Tensor:
    """The images [count, 1, 8, 8] that ``protect`` hands a defence that asks for so many."""
    chosen = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(seed))[:count]
    return digits.train.images[chosen].float() / 255

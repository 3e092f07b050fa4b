"""What an inversion attack is asked for: pictures of classes, so many of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakbench.contracts import Attack, Context, ImageClassifier, ModuleNetwork, Reconstruction, Victim
from leakbench.leakage.inversion.targets import part_of_key
from leakbench.leakage.kind import Deployed
from leakbench.models.training import predict
from leakbench.snn import SpikingNetwork

DRAWS = 4
"""how often a spiking victim, whose noise is fresh each time, is asked what it sees in a reconstruction"""


@dataclass(frozen=True)
class Reconstruct:
    """Pictures of the target classes."""

    deployed: Deployed
    classes: Tensor
    """int64 [C']: of these"""
    images_per_class: int
    test: Tensor
    """uint8 [N, C, H, W]: test images"""
    device: torch.device

    @property
    def inputs(self) -> Mapping[str, Any]:
        all_classes = self.deployed.network.classes
        return {"images_per_class": self.images_per_class, **part_of_key(all_classes, len(self.classes))}

    def run(self, attack: Attack[Any], victim: Victim, context: Any) -> Reconstruction:
        return attack(victim, self.classes.repeat_interleave(self.images_per_class), context)

    def to_tensors(self, outcome: Reconstruction, context: Context) -> dict[str, Tensor]:
        """The images as bytes, the classes that they were made for, what the victim itself makes of them, and what the
        attack had on its way: "snapshots" uint8 [K, N, C, H, W] and "budgets" [K + 1], the last that of the images.

        Of an attack that handed over a student: "agrees" bool [N], whether it answers each test image as the victim.
        """
        network = self.deployed.network
        images = (outcome.images * 255).round().to(torch.uint8)
        draws = 1
        if isinstance(network, SpikingNetwork | ModuleNetwork):
            network.reseed(context.seed())
            draws = DRAWS
        answers = torch.stack([predict(network, images, self.device).softmax(1) for _ in range(draws)]).mean(0)
        agrees = {} if outcome.student is None else {"agrees": self._agrees(outcome.student)}
        return {
            "images": images,
            "targets": outcome.targets,
            "confidence": answers.gather(1, outcome.targets[:, None]).squeeze(1),
            "predicted": answers.argmax(1),
            "snapshots": torch.stack([one.images for one in outcome.snapshots] or [images])[: len(outcome.snapshots)],
            "budgets": torch.tensor([*(one.budget for one in outcome.snapshots), outcome.spent], dtype=torch.float64),
            **agrees,
        }

    def _agrees(self, student: ImageClassifier) -> Tensor:
        given, right = (predict(model, self.test, self.device) for model in (student.eval(), self.deployed.network))
        return given.argmax(1) == right.argmax(1)

"""A network of a few weights, images to train on, and plugins that do what a test tells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Params, TrainingData, Victim
from leakbench.errors import LeakBenchError

SHAPE = (1, 2, 2)


def tiny(classes: int = 3, shape: tuple[int, int, int] = SHAPE) -> ImageClassifier:
    generator = torch.Generator().manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], 4), nn.ReLU(), nn.Linear(4, classes))
    for parameter in body.parameters():
        nn.init.normal_(parameter, generator=generator)
    return ImageClassifier(body, shape, classes, arch="tiny")


def training_data(count: int = 10) -> TrainingData:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    return TrainingData(images, torch.arange(count) * 2)


class Knobs(Params):
    """Parameters of the plugins below."""

    iterations: int = Field(3, ge=1, description="steps")
    rate: float = Field(0.1, gt=0, le=1, description="step size")
    mode: Literal["fast", "slow"] = Field("fast", description="how")

    @model_validator(mode="after")
    def _together(self) -> Knobs:
        if self.mode == "slow" and self.iterations < 2:
            raise ValueError("slow needs two iterations")
        return self


class Painter(Attack[Knobs]):
    """Gives the image that it was made with."""

    name = "painter"
    needs = Access.WEIGHTS
    paint: ClassVar[Callable[[Victim, Tensor, AttackContext], Any]] = staticmethod(
        lambda victim, targets, _context: torch.full((len(targets), *victim.image_shape), 0.5)
    )

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        made: Tensor = type(self).paint(victim, targets, context)
        return made


def painter(paint: Callable[[Victim, Tensor, AttackContext], Any], access: Access = Access.WEIGHTS) -> Painter:
    made: type[Painter] = type("Made", (Painter,), {"paint": staticmethod(paint), "needs": access})
    return made()


def one_line(error: pytest.ExceptionInfo[LeakBenchError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message

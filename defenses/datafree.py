"""Data-free conversion (the paper's DC): the threshold search on synthetic images alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.synthesis import PRESETS, SynthesisParams, crop_and_flip, synthetic_set
from leakbench.models.training import augment
from leakbench.snn import EncoderName, Neuron, SpikingConfig, SpikingNetwork, Surrogate, balance_thresholds


class DataFreeParams(SynthesisParams):
    """Parameters of the data-free conversion; ``setting=authors`` changes the defaults that ``authors`` lists."""

    authors: ClassVar[Mapping[str, Any]] = {
        "beta": 1.0,
        "synthesis_temperature": 20.0,
        "synthesis_lr": 1e-3,
        "synthesis_steps": 2499,
        "synthesis_range": "authors",
        "images": 2048,
        "augmented": True,
        "detach_reset": True,
        "surrogate_height": 0.3,
    }
    """what the authors' public code does; values that are given explicitly win over these"""

    setting: Literal["sound", "authors"] = Field(
        "sound",
        description="sound: as the method needs it; authors: the public code's way, where it is known",
    )
    images: int = Field(512, ge=1, description="synthetic images on which thresholds are found")
    augmented: bool = Field(
        False, description="random crops, and flips where these keep the class, of the synthetic images at each use"
    )
    scale: float = Field(1.0, gt=0, le=1, description="thresholds are scale * maximum")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")
    leak: float = Field(1.0, gt=0, le=1, description="lambda of the neurons; 1 is IF")
    detach_reset: bool = Field(False, description="leave the reset out of the gradient")
    surrogate_height: float = Field(1.0, gt=0, description="factor of Eq. 5's triangle")
    surrogate_width: float = Field(1.0, gt=0, description="half width of Eq. 5's triangle in units of theta")
    timesteps: int | None = Field(
        None,
        ge=1,
        description="T of this defence; none: the grid's, under setting=authors 150, or 200 from 100 classes on",
    )
    calibration_steps: int | None = Field(
        None, ge=1, description="steps over which thresholds are found, once for every T; none: the network's T"
    )

    @model_validator(mode="before")
    @classmethod
    def _setting_first(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("setting") == "authors":
            return {**cls.authors, **given}
        return given

    @property
    def takes_the_grids_timesteps(self) -> bool:
        """Whether T is left to the grid."""
        return self.timesteps is None and self.setting == "sound"

    def config(self, classes: int, context: DefenseContext) -> SpikingConfig:
        """How a converted network of ``classes`` spikes."""
        # the paper's T: 150 for CIFAR-10, 200 for CIFAR-100 and TinyImageNet
        default = 200 if classes >= 100 else 150
        timesteps = self.timesteps or (context.timesteps if self.takes_the_grids_timesteps else default)
        surrogate = Surrogate("triangle", self.surrogate_width, self.surrogate_height)
        neuron = Neuron(self.leak, reset="soft", detach_reset=self.detach_reset, surrogate=surrogate)
        return SpikingConfig(timesteps, self.encoder, neuron, context.precision)


class DataFree(Defense[DataFreeParams]):
    """PrivateSNN's first step alone (DC): RMP conversion on synthetic images; no training data."""

    name = "datafree"
    version = 2
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 2 step 1"
    presets: ClassVar = PRESETS

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:  # noqa: ARG002
        return convert_datafree(ann, self.params, context)

    @property
    def anytime(self) -> bool:  # type: ignore[override]
        """One network for every T, where thresholds are found over steps of their own and T is the grid's."""
        return self.params.calibration_steps is not None and self.params.takes_the_grids_timesteps

    @property
    def takes_timesteps(self) -> bool:  # type: ignore[override]
        return self.params.takes_the_grids_timesteps


def convert_datafree(ann: ImageClassifier, params: DataFreeParams, context: DefenseContext) -> SpikingNetwork:
    """A conversion whose thresholds are found on the network's synthetic set."""
    network = SpikingNetwork.from_ann(ann, params.config(ann.classes, context))
    images = synthetic_set(ann, params, context)["images"]
    # the set is ordered by class: take images from all over it
    index = torch.linspace(0, len(images) - 1, min(params.images, len(images))).round().long()
    picked = images[index].float() / 255
    if params.augmented:
        picked = augment(picked, crop_and_flip(ann, context), context.generator)
    balance_thresholds(
        network,
        picked.to(context.device),
        context.seed(),
        params.scale,
        params.calibration_steps,
        progress=context.progress,
        loop=context.loop("balancing thresholds"),
    )
    return network

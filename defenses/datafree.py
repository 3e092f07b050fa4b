"""Data-free conversion (the paper's DC): the threshold search on synthetic images alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from leakbench.contracts import Context, Defense, ImageClassifier, TrainingData
from leakbench.defenses.synthesis import PRESETS, SynthesisParams, synthetic_set
from leakbench.snn import EncoderName, Neuron, SpikingConfig, SpikingNetwork, balance_thresholds


class DataFreeParams(SynthesisParams):
    """Parameters of the data-free conversion."""

    images: int = Field(512, ge=1, description="synthetic images on which thresholds are found")
    scale: float = Field(1.0, gt=0, le=1, description="thresholds are scale * maximum")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")
    leak: float = Field(1.0, gt=0, le=1, description="lambda of the neurons; 1 is IF")
    calibration_steps: int | None = Field(
        None, ge=1, description="steps over which thresholds are found, once for every T; none: the network's T"
    )


class DataFree(Defense[DataFreeParams]):
    """PrivateSNN's first step alone (DC): RMP conversion on synthetic images; no training data."""

    name = "datafree"
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 2 step 1"
    presets: ClassVar = PRESETS

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:  # noqa: ARG002
        neuron = Neuron(self.params.leak, reset="soft")
        config = SpikingConfig(context.timesteps, self.params.encoder, neuron, context.precision)
        return convert_datafree(ann, self.params, config, context)

    @property
    def anytime(self) -> bool:  # type: ignore[override]
        """One network for every T, where thresholds are found over steps of their own."""
        return self.params.calibration_steps is not None


def convert_datafree(
    ann: ImageClassifier, params: DataFreeParams, config: SpikingConfig, context: Context
) -> SpikingNetwork:
    """A conversion whose thresholds are found on the network's synthetic set."""
    network = SpikingNetwork.from_ann(ann, config)
    images = synthetic_set(ann, params, context)["images"]
    # the set is ordered by class: take images from all over it
    index = torch.linspace(0, len(images) - 1, min(params.images, len(images))).round().long()
    picked = images[index].to(context.device).float() / 255
    balance_thresholds(
        network, picked, context.seed(), params.scale, params.calibration_steps, progress=context.progress
    )
    return network

"""Conversions that need the private training data: thresholds found on training images."""

from __future__ import annotations

from pydantic import Field

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.snn import EncoderName, Neuron, SpikingConfig, SpikingNetwork, balance_thresholds


class SpikeNormParams(Params):
    """Parameters of Spike-Norm."""

    images: int = Field(512, ge=1, description="training images on which thresholds are found")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")
    leak: float = Field(1.0, gt=0, le=1, description="lambda of the neurons; 1 is IF")
    calibration_steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="steps over which thresholds are found, once for every T; none: the network's T",
    )


class RmpParams(SpikeNormParams):
    """Parameters of RMP."""

    beta: float = Field(1.0, gt=0, le=1, description="thresholds are beta * maximum (0.6-0.9 are reported)")


class Sengupta2019(Defense[SpikeNormParams]):
    """Spike-Norm: thresholds are the layers' highest weighted inputs on training images; hard reset."""

    name = "sengupta2019"
    cites = "Sengupta, Ye, Wang, Liu, Roy: Going Deeper in Spiking Neural Networks, Front. Neurosci. 13, 2019"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        return _convert(ann, data, context, self.params, Neuron(self.params.leak, reset="hard"), 1.0)

    @property
    def anytime(self) -> bool:  # type: ignore[override]
        """One network for every T, where thresholds are found over steps of their own."""
        return self.params.calibration_steps is not None


class Han2020(Defense[RmpParams]):
    """RMP-SNN: the same threshold search with soft reset, which keeps the residual membrane potential."""

    name = "han2020"
    cites = "Han, Srinivasan, Roy: RMP-SNN, CVPR 2020"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        return _convert(ann, data, context, self.params, Neuron(self.params.leak, reset="soft"), self.params.beta)

    @property
    def anytime(self) -> bool:  # type: ignore[override]
        """One network for every T, where thresholds are found over steps of their own."""
        return self.params.calibration_steps is not None


def _convert(
    ann: ImageClassifier,
    data: TrainingData,
    context: DefenseContext,
    params: SpikeNormParams,
    neuron: Neuron,
    scale: float,
) -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps, params.encoder, neuron, context.precision))
    x, _ = data.sample(params.images, context.generator)
    balance_thresholds(
        network,
        x.to(context.device),
        context.seed(),
        scale,
        params.calibration_steps,
        progress=context.progress,
        loop=context.loop("balancing thresholds"),
    )
    return network

"""Conversions that need the private training data: thresholds found on training images."""

from __future__ import annotations

from pydantic import Field

from leakbench.contracts import Context, Defense, ImageClassifier, Params, TrainingData
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, balance_thresholds


class Sengupta2019(Defense["Sengupta2019.Params"]):
    """Spike-Norm: thresholds are the layers' highest weighted inputs on training images; hard reset."""

    name = "sengupta2019"
    cites = "Sengupta, Ye, Wang, Liu, Roy: Going Deeper in Spiking Neural Networks, Front. Neurosci. 13, 2019 (SPIKE-NORM)"

    class Params(Params):
        """Parameters of Spike-Norm."""

        images: int = Field(512, ge=1, description="training images on which thresholds are found")

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:
        return _convert(ann, data, context, Neuron(reset="hard"), self.params.images, 1.0)


class Han2020(Defense["Han2020.Params"]):
    """RMP-SNN: the same threshold search with soft reset, which keeps the residual membrane potential."""

    name = "han2020"
    cites = "Han, Srinivasan, Roy: RMP-SNN, CVPR 2020"

    class Params(Params):
        """Parameters of RMP."""

        images: int = Field(512, ge=1, description="training images on which thresholds are found")
        beta: float = Field(1.0, gt=0, le=1, description="thresholds are beta * maximum (0.6-0.9 are reported)")

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:
        return _convert(ann, data, context, Neuron(reset="soft"), self.params.images, self.params.beta)


def _convert(
    ann: ImageClassifier, data: TrainingData, context: Context, neuron: Neuron, images: int, scale: float
) -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann, SpikingConfig(context.timesteps, neuron=neuron))
    x, _ = data.sample(images, context.generator)
    balance_thresholds(network, x.to(context.device), context.seed(), scale, progress=context.progress)
    return network

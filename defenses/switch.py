"""Temporal switch coding: RMP's network, run on two spikes a neuron instead of rates."""

from __future__ import annotations

from pydantic import Field

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.defenses.conversion import Han2020
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.switch import SwitchNeuron


class SwitchParams(Params):
    """Parameters of temporal switch coding: those of RMP's thresholds."""

    images: int = Field(512, ge=1, description="training images on which thresholds are found")
    beta: float = Field(1.0, gt=0, le=1, description="thresholds are beta * maximum (0.6-0.9 are reported)")
    calibration_steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="steps over which thresholds are found, once for every T; none: the network's T",
    )


class HanRoy2020(Defense[SwitchParams]):
    """TSC-SNN: values are intervals between an on- and an off-spike; weights and thresholds are RMP's (han2020).

    So what the weights give away is what RMP's do, and energy is what differs: at most two spikes a neuron, two
    additions a synapse. Thresholds are RMP's search under the Poisson code, as T steps of it find them. T is the
    length of a layer's window: an image takes T steps for the input and T for every layer of neurons, which rate
    codes, whose layers run side by side, don't. The code is this project's reading of the paper's idea.
    """

    name = "han_roy2020"
    cites = "Han, Roy: Deep Spiking Neural Network: Energy Efficiency Through Time Based Coding, ECCV 2020"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        rates = Han2020(**self.params.model_dump()).protect(ann, data, context)
        config = SpikingConfig(context.timesteps, "switch", SwitchNeuron(), context.precision)
        network = SpikingNetwork.from_ann(ann, config)
        for layer, balanced in zip(network.neurons, rates.neurons, strict=True):
            layer.set_threshold(balanced.threshold)
        return network

    @property
    def anytime(self) -> bool:  # type: ignore[override]
        """One network for every T, where thresholds are found over steps of their own."""
        return self.params.calibration_steps is not None

"""SNN calibration: thresholds for few time steps, then the layers' errors corrected one after the other (Li 2021)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.snn import (
    Neuron,
    SpikingConfig,
    SpikingNetwork,
    highest_activations,
    mean_activations,
    mean_outputs,
    set_thresholds,
    watch_activations,
)
from leakbench.snn.folding import with_biases

_CANDIDATES = 95


class Li2021Params(Params):
    """Parameters of SNN calibration."""

    mode: Literal["light", "advanced"] = Field(
        "advanced", description="light: corrects a bias a channel; advanced: an initial membrane a neuron"
    )
    images: int = Field(128, ge=1, description="training images of the calibration (the authors' batch: 128)")


class Li2021(Defense[Li2021Params]):
    """SNN calibration: thresholds of least squared error at T, then means corrected by biases or initial membranes.

    Currents get theta / 2T a step, half of what flooring takes away. Then, layer by layer with the layers before it
    spiking as corrected, what the ANN puts out in the mean and the spikes do not is added: light, a channel's mean to
    its bias; advanced, T times a neuron's mean as its membrane at t = 0, in place of the bias. Advanced is the default:
    it is the authors' better one, and for small images they leave out its third part, the training of weights, since
    membranes alone were best ("calibrating the potential only achieves best results"). It keeps as many numbers as the
    network has neurons. Thresholds stand for all the images at once; the authors' are running means over batches.
    """

    name = "li2021"
    cites = (
        "Li, Deng, Dong, Gong, Gu: A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks "
        "Calibration, ICML 2021, light and advanced pipeline (without weight calibration)"
    )

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params, steps = self.params, context.timesteps
        folded = with_biases(ann)
        config = SpikingConfig(steps, "direct", Neuron(reset="soft"), context.precision)
        network = SpikingNetwork.from_ann(folded, config)
        images, _ = data.sample(params.images, context.generator)
        images = images.to(context.device)
        seed = context.seed()
        set_thresholds(network, least_error_thresholds(folded, images, context))
        for layer in network.neurons:
            network.add_current(layer, layer.threshold / (2 * steps))
        wanted = mean_activations(folded, images, context.progress)
        layers = network.neurons
        for done, layer in enumerate(layers):
            context.progress("calibrating layers", done, len(layers))
            outputs = context.once("mean outputs", partial(mean_outputs, network, layer, images, seed))
            missing = wanted[layer.layer] - outputs
            if params.mode == "light":
                network.add_current(layer, missing.flatten(1).mean(1) if missing.dim() > 1 else missing)
            else:
                layer.initial = steps * missing
        context.progress("calibrating layers", len(layers), len(layers))
        return network


def least_error_thresholds(ann: ImageClassifier, images: Tensor, context: DefenseContext) -> dict[str, float]:
    """nn.ReLU -> threshold V of least squared error between its outputs a and what T spikes can say of them.

    min over V of |clip(floor(a T / V), 0, T) V / T - a|^2, V = (1 - .01 i) max(a), i = 0..94, at the context's T.
    ``images`` [N, C, H, W] in [0, 1].
    """
    steps = context.timesteps
    highest = highest_activations(ann, images, context.progress)
    candidates = {name: [(1 - 0.01 * i) * top for i in range(_CANDIDATES)] for name, top in highest.items()}
    errors = {name: [0.0] * _CANDIDATES for name in highest}

    def watch(name: str, out: Tensor) -> None:
        active = out[out > 0]  # zeros stay zeros
        for i, threshold in enumerate(candidates[name]):
            rounded = (active / threshold * steps).floor_().clamp_(max=steps).mul_(threshold / steps)
            errors[name][i] += float(rounded.sub_(active).square_().sum())

    watch_activations(ann, images, watch, context.progress)
    return {
        name: min(zip(errors[name], candidates[name], strict=True), key=lambda pair: pair[0])[1] for name in highest
    }

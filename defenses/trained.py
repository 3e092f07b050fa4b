"""Networks trained with spikes from scratch: STBP, tdBN and the spike-based backpropagation of Lee 2020.

Nothing is converted: an untrained network of the ANN's architecture learns the private images through all T steps, and
this network is what is deployed, at the T of its training.

A spike is worth theta downstream here and 1 in the papers: behind neurons, their weights are theta times these. Output
neurons that spike (Wu 2018) or leak (Lee 2020) are left out, as the engine's output layer accumulates: what the losses
see as the network's answer is u_L(T) / T. Batch norms of the ANN's architecture are folded before training, so that
they are biases and nothing more, but for tdBN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, fx, nn
from torch.nn import functional

from leakbench.contracts import Context, Defense, DefenseContext, ImageClassifier, Params, ShuffledPasses, TrainingData
from leakbench.defenses.controls import untrained
from leakbench.errors import NotApplicable, NumericalError, UsageError
from leakbench.snn import EncoderName, Neuron, SpikingConfig, SpikingNetwork, Surrogate, add_gradients, folding
from leakbench.snn.neurons import TimeFixedDropout

Loss = Callable[[Tensor, Tensor], Tensor]
"""(u_L(T) / T [B, classes], labels [B]) -> what is to be lowered"""


class TrainedParams(Params):
    """What all of them have in common; the subclasses set defaults."""

    epochs: int = Field(3, ge=1, description="passes over the training images")
    least_steps: int = Field(1000, ge=0, description="as many more passes as make so many steps of the optimiser")
    batch_size: int = Field(64, ge=1, le=10_000, description="images a step")
    dropout: float = Field(0.0, ge=0, lt=1, description="in training, where the ANN has dropout; masks fixed over T")


class StbpParams(TrainedParams):
    """Parameters of STBP: those of the authors' code for MNIST, but for T and the length of training."""

    timesteps: int | None = Field(8, ge=1, le=100_000, description="T of training and deployment; none: the grid's")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")
    leak: float = Field(0.2, gt=0, le=1, description="lambda of the neurons")
    threshold: float = Field(0.5, gt=0, description="theta of the neurons")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate; divided by 10 at 40 % and 80 % of training")


class TdBnParams(TrainedParams):
    """Parameters of tdBN."""

    timesteps: int | None = Field(4, ge=1, le=100_000, description="T of training and deployment; none: the grid's")
    leak: float = Field(0.25, gt=0, le=1, description="lambda of the neurons")
    threshold: float = Field(0.5, gt=0, description="V_th of the neurons")
    lr: float = Field(0.1, gt=0, description="SGD's learning rate; divided by 10 at 50 % and 75 % of training")


class Lee2020Params(TrainedParams):
    """Parameters of Lee 2020; the preset "paper" has those of the authors' code for VGG9.

    The defaults are for a few thousand steps, where the paper takes some hundred thousand: SGD at its learning rate is
    far from done by then (Fashion-MNIST: .6), and at nine times that rate learned digits and nothing on Fashion-MNIST.
    """

    epochs: int = Field(2, ge=1, description="passes over the training images")
    batch_size: int = Field(32, ge=1, le=10_000, description="images a step; their losses are summed")
    dropout: float = Field(0.2, ge=0, lt=1, description="in training, where the ANN has dropout; masks fixed over T")
    timesteps: int | None = Field(16, ge=1, le=100_000, description="T of training and deployment; none: the grid's")
    spiking_pools: bool = Field(False, description="pooling layers spike, at .75 theta; else they pass averages on")
    leak: float = Field(0.99, gt=0, le=1, description="lambda of the neurons")
    threshold: float = Field(1.0, gt=0, description="theta of the neurons")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="what takes the steps")
    lr: float = Field(1e-3, gt=0, description="learning rate; divided by 5 at 47, 67 and 83 % of training")
    weight_decay: float = Field(5e-4, ge=0, description="of the optimiser")


class Stbp(Defense[StbpParams]):
    """STBP: leaky neurons with a hard reset learn to answer with one-hot rates, through a rectangle's derivative."""

    name = "stbp"
    cites = "Wu, Deng, Li, Zhu, Shi: Spatio-Temporal Backpropagation, Front. Neurosci. 12, 2018"
    presets: ClassVar = {
        "quick": {"epochs": 1, "least_steps": 500},
        "paper-cpu": {"epochs": 1},
        "paper": {"epochs": 100, "batch_size": 100, "timesteps": 20},
    }

    @property
    def takes_timesteps(self) -> bool:  # type: ignore[override]
        return self.params.timesteps is None

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        neuron = Neuron(params.leak, reset="hard", surrogate=rectangle(params.threshold))
        config = SpikingConfig(params.timesteps or context.timesteps, params.encoder, neuron, context.precision)
        network = SpikingNetwork.from_ann(untrained(ann, context), config)
        set_thresholds(network, params.threshold)
        optimizer = torch.optim.Adam(network.parameters(), lr=params.lr)
        train_with_spikes(network, data, params, Lesson(optimizer, _squared_error, (0.4, 0.8), 0.1), context, self.name)
        return network


class TdBn(Defense[TdBnParams]):
    """STBP-tdBN: currents are normalised over images, places and steps to thresholds; folded where it is deployed.

    An architecture without batch norm gets one behind each convolution while it learns. Batches are of ``batch_size``
    images, or of as many as fit in memory with all their steps.
    """

    name = "tdbn"
    cites = "Zheng, Wu, Deng, Hu, Li: Going Deeper With Directly-Trained Larger SNNs (tdBN), AAAI 2021"
    presets: ClassVar = {
        "quick": {"epochs": 1, "least_steps": 250},
        "paper-cpu": {"epochs": 1},
        "paper": {"epochs": 100, "timesteps": 6},
    }

    @property
    def takes_timesteps(self) -> bool:  # type: ignore[override]
        return self.params.timesteps is None

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        neuron = Neuron(params.leak, reset="hard", surrogate=rectangle(params.threshold))
        config = SpikingConfig(params.timesteps or context.timesteps, "direct", neuron, context.precision)
        normed = with_threshold_norms(untrained(ann, context), params.threshold)
        network = SpikingNetwork.from_ann(normed, config, fold=False)
        set_thresholds(network, params.threshold)
        if network.chunk_steps(params.batch_size) < config.timesteps:
            params = params.model_copy(update={"batch_size": network.batch_in_memory()})
            if params.batch_size < 2:
                raise UsageError(
                    f"tdbn normalises over images and all {config.timesteps} steps together, and no two images fit in "
                    "memory: set tdbn.timesteps to fewer"
                )
            context.finding("images a step, as fit in memory", params.batch_size)
        optimizer = torch.optim.SGD(_groups(network, params.lr), lr=params.lr, momentum=0.9)
        lesson = Lesson(optimizer, functional.cross_entropy, (0.5, 0.75), 0.1)
        train_with_spikes(network, data, params, lesson, context, self.name)
        return folded(network)


class Lee2020(Defense[Lee2020Params]):
    """Spike-based backpropagation: a neuron that has fired passes on the gradient over theta, any other none.

    The paper passes gradients back through time as if nothing leaked, and multiplies those of a neuron by a factor for
    the leak, from its whole spike train, that is between 1 + ln(lambda) and 1 (.99 to 1 at .99). Here gradients leak as
    the membrane does and the factor is left out. Its pooling neurons do not leak; here all do. It has dropout behind
    every layer; here it stands where the ANN has it.
    """

    name = "lee2020"
    cites = "Lee, Sarwar, Panda, Srinivasan, Roy: Enabling Spike-Based Backpropagation, Front. Neurosci. 14, 2020"
    presets: ClassVar = {
        "quick": {"epochs": 1, "least_steps": 500},
        "paper-cpu": {"epochs": 1},
        "paper": {
            "epochs": 150,
            "batch_size": 16,
            "timesteps": 100,
            "spiking_pools": True,
            "optimizer": "sgd",
            "lr": 0.0033,
        },
    }

    @property
    def takes_timesteps(self) -> bool:  # type: ignore[override]
        return self.params.timesteps is None

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        if any(isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) for module in ann.modules()):
            raise NotApplicable("lee2020 pools by averages: take a model without max pooling")
        blank = untrained(ann, context)
        neuron = Neuron(params.leak, reset="hard", detach_reset=True, surrogate=Surrogate("fired"))
        config = SpikingConfig(params.timesteps or context.timesteps, "poisson", neuron, context.precision)
        network = SpikingNetwork.from_ann(folding.with_spiking_pools(blank) if params.spiking_pools else blank, config)
        set_thresholds(network, params.threshold, 0.75 * params.threshold)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            rates = logits / params.threshold
            return functional.mse_loss(rates, _one_hot(rates, labels), reduction="sum")

        kind = torch.optim.Adam if params.optimizer == "adam" else torch.optim.SGD
        optimizer = kind(network.parameters(), lr=params.lr, weight_decay=params.weight_decay)
        lesson = Lesson(optimizer, loss, (70 / 150, 100 / 150, 125 / 150), 0.2, summed=True)
        train_with_spikes(network, data, params, lesson, context, self.name)
        # the derivative is for learning: what others differentiate the network by is the engine's own
        return network.configured(replace(config, neuron=Neuron(params.leak, reset="hard")))


def rectangle(threshold: float) -> Surrogate:
    """do/du = 1 where |u - theta| < 1/2, else 0 (the h_1 of Wu 2018 with a_1 = 1)."""
    width = 0.5 / threshold
    return Surrogate("rectangle", width, height=1 / width)


def set_thresholds(network: SpikingNetwork, threshold: float, pools: float | None = None) -> None:
    """``threshold`` for every neuron, or ``pools`` for those that pool: no weight layer feeds them."""
    for layer in network.neurons:
        weighs = bool(network.topology.feeders[layer.layer])
        layer.set_threshold(threshold if weighs or pools is None else pools)


@dataclass(frozen=True)
class Lesson:
    """How a network is trained."""

    optimizer: torch.optim.Optimizer
    loss: Loss
    lowered_at: tuple[float, ...]
    """parts of training after which the learning rates are multiplied by ``factor``"""
    factor: float
    summed: bool = False
    """whether the loss of a batch is a sum over its images; a mean otherwise"""


def train_with_spikes(
    network: SpikingNetwork, data: TrainingData, params: TrainedParams, lesson: Lesson, context: Context, name: str
) -> None:
    """Trains ``network`` in place on the private images, through all its steps; leaves it frozen, in eval mode."""
    for module in network.modules():
        if isinstance(module, TimeFixedDropout):
            module.p = params.dropout
    network.train().requires_grad_(True)
    batches = ShuffledPasses(len(data), params.batch_size, context.generator)
    total = max(params.epochs, math.ceil(params.least_steps / batches.batches)) * batches.batches

    def lowered(step: int) -> float:
        return lesson.factor ** sum(step >= part * total for part in lesson.lowered_at)

    schedule = torch.optim.lr_scheduler.LambdaLR(lesson.optimizer, lowered)
    optimizer, loop = lesson.optimizer, context.loop("training with spikes")
    for step in loop.steps(total, network=network, optimizer=optimizer, schedule=schedule, batches=batches, data=data):
        images, labels = data.take(batches.batch(step))
        labels = labels.to(context.device)

        def share(logits: Tensor, part: slice, labels: Tensor = labels) -> Tensor:
            loss = lesson.loss(logits, labels[part])
            return loss if lesson.summed else loss * (len(logits) / len(labels))

        optimizer.zero_grad(set_to_none=True)
        loss = add_gradients(network, images.to(context.device), context.seed(), share)
        if not math.isfinite(loss):
            raise NumericalError(f"{name}: the loss is {loss} at step {step}: lower {name}.lr")
        optimizer.step()
        schedule.step()
        context.progress("training with spikes", step + 1, total)
    network.eval().requires_grad_(False)


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.one_hot(labels, logits.shape[1]).to(logits.dtype)


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over images and classes of (u_L / T - one-hot)^2, as in Wu 2018."""
    return functional.mse_loss(logits, _one_hot(logits, labels))


# --- tdBN ------------------------------------------------------------------------------------------------------------


class _Normalised(nn.Sequential):
    """A convolution and the batch norm that it has while the network learns."""


def with_threshold_norms(ann: ImageClassifier, threshold: float) -> ImageClassifier:
    """``ann``, changed: a batch norm behind each convolution, if there is none, and tdBN's weights in each.

    tdBN is lambda alpha V_th (x - mu) / sqrt(var + eps) + beta with mu and var over (T, N, H, W), alpha 1, or
    1 / sqrt(2) where currents are summed behind it (residual blocks). As time is folded into the batch, that is a batch
    norm of weight lambda alpha V_th. Raises NotApplicable where batch norms can't be folded.
    """
    if not folding.has_batch_norm(ann.body):
        for name, module in list(ann.body.named_modules()):
            if isinstance(module, nn.Conv2d):
                folding.replace(
                    ann.body, name, _Normalised(module, nn.BatchNorm2d(module.out_channels).to(module.weight.device))
                )
    folding.with_biases(ann)  # on a copy: what can't be folded later is refused now
    parts = dict(ann.body.named_modules())
    for node in fx.Tracer().trace(ann.body).nodes:
        norm = parts.get(str(node.target))
        if isinstance(norm, nn.BatchNorm2d):
            alone = all(isinstance(parts.get(str(user.target)), nn.ReLU) for user in node.users)
            nn.init.constant_(norm.weight, threshold if alone else threshold / math.sqrt(2))
    return ann


def _groups(network: SpikingNetwork, lr: float) -> list[dict[str, Any]]:
    """Parameters and their learning rates, under which the norms' weights move as steps on lambda move them.

    w = s lambda with s = alpha V_th, so dL/dlambda = s dL/dw, and a step of lr on lambda is one of s^2 lr on w.
    """
    norms = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    others = [p for p in network.parameters() if not any(p is weight for weight in norms)]
    return [{"params": others}, *({"params": [w], "lr": lr * float(w.detach()[0]) ** 2} for w in norms)]


def folded(network: SpikingNetwork) -> SpikingNetwork:
    """The trained network with its norms folded into the convolutions before them and biases ("+bias")."""
    ann = folding.with_biases(network.reconvert())
    for name, module in list(ann.body.named_modules()):
        if isinstance(module, _Normalised):
            folding.replace(ann.body, name, module[0])
    deployed = SpikingNetwork.from_ann(ann, network.config)
    for layer, trained in zip(deployed.neurons, network.neurons, strict=True):
        layer.set_threshold(trained.threshold)
    return deployed

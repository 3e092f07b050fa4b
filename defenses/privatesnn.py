"""PrivateSNN: data-free conversion, class encryption training (CET) and on-device distillation (OD).

The authors released no code for CET and OD: this is a reimplementation from the paper
(docs/method.md, Encryption training).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Context, Defense, DefenseContext, ImageClassifier, ShuffledPasses, TrainingData
from leakbench.defenses.datafree import DataFreeParams, convert_datafree
from leakbench.defenses.synthesis import PRESETS, crop_and_flip, synthetic_set
from leakbench.errors import NumericalError
from leakbench.models.training import augment
from leakbench.snn import SpikingNetwork, add_gradients
from leakbench.snn.folding import replace
from leakbench.snn.neurons import TimeFixedDropout

EPOCHS = {"quick": 4, "standard": 6, "paper-cpu": 5, "paper": 20}
"""of encryption training, by preset"""


class PrivateSNNParams(DataFreeParams):
    """Parameters of PrivateSNN; ``setting=authors`` changes the defaults that ``authors`` lists.

    Of encryption training the public code holds the network and the options that its training had.
    """

    authors: ClassVar[Mapping[str, Any]] = {
        **DataFreeParams.authors,
        "hard_labels": True,
        "undivided_logits": True,
        "weight_decay": 5e-4,
        "amsgrad": True,
        "conv_dropout": 0.3,
    }

    cet: bool = Field(True, description="class encryption training; false leaves the data-free conversion (DC)")
    od: bool = Field(True, description="distillation from the ANN during CET; false is DC+CET, cross-entropy alone")
    epochs: int = Field(20, ge=1, description="passes over the synthetic set")
    batch_size: int = Field(64, ge=1, description="synthetic images a step")
    lr: float = Field(1e-4, gt=0, description="Adam's learning rate; divided by 10 at 50 % and 70 % of the epochs")
    m: float = Field(0.7, ge=0, le=1, description="weight of distillation against cross-entropy (Eq. 3)")
    tau: float = Field(20.0, gt=0, description="distillation temperature")
    hard_labels: bool = Field(False, description="train on the intended class instead of the drawn soft label")
    undivided_logits: bool = Field(False, description="the loss sees u_L(T) of the unit-spike network, not logits")
    weight_decay: float = Field(0.0, ge=0, description="Adam's weight decay")
    amsgrad: bool = Field(False, description="Adam's AMSGrad variant")
    dropout: float | None = Field(None, ge=0, lt=1, description="the ANN's dropout during CET; none: its own rate")
    conv_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout during CET behind convolutions that no pooling follows"
    )


class PrivateSNN(Defense[PrivateSNNParams]):
    """Data-free conversion, then weights "encrypted" by spike-based training with distillation (DC+CET+OD)."""

    name = "privatesnn"
    version = 3
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 2, Eq. 3-5"
    presets: ClassVar = {name: {**PRESETS[name], "epochs": epochs} for name, epochs in EPOCHS.items()}

    @property
    def takes_timesteps(self) -> bool:  # type: ignore[override]
        return self.params.takes_the_grids_timesteps

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:  # noqa: ARG002
        params = self.params
        network = convert_datafree(ann, params, context)
        if params.cet:
            encrypt(network, ann, synthetic_set(ann, params, context), params, context)
        return network


@contextmanager
def conv_dropout(network: SpikingNetwork, rate: float) -> Iterator[None]:
    """Dropout of ``rate`` behind convolutions' neurons for a time, where no pooling follows, as in the authors' VGG16.

    A mask stays the same over the T steps of a sample. It stands before the layer that reads these neurons; two layers
    that read the same ones have the same mask.
    """
    topology = network.topology
    parts = dict(network.body.named_modules())
    read = {}
    for layer in topology.weights:
        producer, *others = layer.producers
        convolved = any(isinstance(parts[name], nn.Conv2d) for name in topology.feeders.get(producer, ()))
        # as many inputs as neurons: nothing was pooled on the way
        if rate and convolved and not others and layer.input_neurons == topology.neurons[producer]:
            read[layer.name] = producer
    try:
        for name, producer in read.items():
            # salts that no dropout of the network has: theirs count its modules
            salt = len(parts) + topology.activations.index(producer)
            replace(network.body, name, nn.Sequential(TimeFixedDropout(rate, f"{producer} dropped", salt), parts[name]))
        yield
    finally:
        for name in read:
            replace(network.body, name, parts[name])


def encrypt(
    network: SpikingNetwork,
    ann: ImageClassifier,
    synthetic: Mapping[str, Tensor],
    params: PrivateSNNParams,
    context: Context,
) -> None:
    """Train the weights in place through all steps (STBP, Eq. 4) with Eq. 3's loss; thresholds stay.

    L = (1 - m) CE(SNN(x), y) + m tau^2 KL(ANN(x)/tau || SNN(x)/tau); without distillation, CE alone.
    """
    for module in network.modules():
        if isinstance(module, TimeFixedDropout) and params.dropout is not None:
            module.p = params.dropout
    with conv_dropout(network, params.conv_dropout):
        _train(network, ann, synthetic, params, context)


def _train(
    network: SpikingNetwork,
    ann: ImageClassifier,
    synthetic: Mapping[str, Tensor],
    params: PrivateSNNParams,
    context: Context,
) -> None:
    images, device = synthetic["images"], context.device
    soft = synthetic["soft_labels"]
    if params.hard_labels:
        soft = functional.one_hot(synthetic["intended"], ann.classes).float()
    views = crop_and_flip(ann, context)
    m = params.m if params.od else 0.0
    # u_L(T) of the unit-spike network is T logits / (product of its thresholds), i.e. over the last layer's theta here
    loss_scale = (
        network.config.timesteps / float(network.neurons[-1].threshold.max()) if params.undivided_logits else 1.0
    )
    network.train().requires_grad_(True)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=params.lr, weight_decay=params.weight_decay, amsgrad=params.amsgrad
    )
    milestones = [max(1, round(params.epochs * part)) for part in (0.5, 0.7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    batches = ShuffledPasses(len(images), params.batch_size, context.generator)
    total = params.epochs * batches.batches
    loop = context.loop("encrypting weights")
    for step in loop.steps(total, network=network, optimizer=optimizer, schedule=schedule, batches=batches):
        index = batches.batch(step)
        x = images[index].float() / 255
        if params.augmented:
            x = augment(x, views, context.generator)
        x = x.to(device)
        target = soft[index].to(device)
        with torch.no_grad():
            teacher = ann(x) if m else None

        def share(logits: Tensor, part: slice, target: Tensor = target, teacher: Tensor | None = teacher) -> Tensor:
            logits = logits * loss_scale
            loss = (1 - m) * functional.cross_entropy(logits, target[part])
            if teacher is not None:
                divergence = functional.kl_div(
                    (logits / params.tau).log_softmax(1), (teacher[part] / params.tau).log_softmax(1),
                    reduction="batchmean", log_target=True,
                )  # fmt: skip
                loss = loss + m * params.tau**2 * divergence
            return loss * (len(logits) / len(target))

        optimizer.zero_grad(set_to_none=True)
        loss = add_gradients(network, x, context.seed(), share)
        if not math.isfinite(loss):
            raise NumericalError(f"privatesnn: the loss is {loss} at step {step} of encryption training")
        optimizer.step()
        if (step + 1) % batches.batches == 0:
            schedule.step()
        context.progress("encrypting weights", step + 1, total)
    network.eval().requires_grad_(False)

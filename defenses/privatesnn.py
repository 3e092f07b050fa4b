"""PrivateSNN: data-free conversion, class encryption training (CET) and on-device distillation (OD).

The authors released no code for CET and OD: this is a reimplementation from the paper (method, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from leakbench.contracts import Context, Defense, ImageClassifier, TrainingData
from leakbench.defenses.datafree import DataFreeParams, convert_datafree
from leakbench.defenses.synthesis import PRESETS, synthetic_set
from leakbench.errors import NumericalError
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate
from leakbench.snn.neurons import TimeFixedDropout

EPOCHS = {"quick": 4, "standard": 6, "paper": 20}
"""of encryption training, by preset"""

# What the public repository's leftovers and the paper's letter say, as far as it can be known. Values that are
# given explicitly win over these.
AUTHORS: Mapping[str, Any] = {
    "beta": 1.0,
    "synthesis_temperature": 20.0,
    "synthesis_lr": 1e-3,
    "synthesis_steps": 2499,
    "hard_labels": True,
    "undivided_logits": True,
    "detach_reset": True,
    "surrogate_height": 0.3,
    "weight_decay": 5e-4,
    "amsgrad": True,
    "dropout": 0.3,
    "timesteps": 150,
}


class PrivateSNNParams(DataFreeParams):
    """Parameters of PrivateSNN; ``setting=authors`` changes the defaults of those that the authors' code differs in."""

    setting: Literal["sound", "authors"] = Field(
        "sound",
        description="sound: as the method needs it; authors: the repository's leftovers and the paper's letter",
    )
    cet: bool = Field(True, description="class encryption training; false leaves the data-free conversion (DC)")
    od: bool = Field(True, description="distillation from the ANN during CET; false is DC+CET, cross-entropy alone")
    epochs: int = Field(20, ge=1, description="passes over the synthetic set")
    batch_size: int = Field(64, ge=1, description="synthetic images a step")
    lr: float = Field(1e-4, gt=0, description="Adam's learning rate; divided by 10 at 50 % and 70 % of the epochs")
    m: float = Field(0.7, ge=0, le=1, description="weight of distillation against cross-entropy (Eq. 3)")
    tau: float = Field(20.0, gt=0, description="distillation temperature")
    hard_labels: bool = Field(False, description="train on the intended class instead of the drawn soft label")
    undivided_logits: bool = Field(False, description="the loss sees u_L(T) of the unit-spike network, not logits")
    detach_reset: bool = Field(False, description="leave the reset out of the gradient")
    surrogate_height: float = Field(1.0, gt=0, description="factor of Eq. 5's triangle")
    surrogate_width: float = Field(1.0, gt=0, description="half width of Eq. 5's triangle in units of theta")
    weight_decay: float = Field(0.0, ge=0, description="Adam's weight decay")
    amsgrad: bool = Field(False, description="Adam's AMSGrad variant")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout during CET; none: as in the ANN")
    timesteps: int | None = Field(None, ge=1, description="T of this defence; none: the grid's")

    @model_validator(mode="before")
    @classmethod
    def _setting_first(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("setting") == "authors":
            return {**AUTHORS, **given}
        return given


class PrivateSNN(Defense[PrivateSNNParams]):
    """Data-free conversion, then weights "encrypted" by spike-based training with distillation (DC+CET+OD)."""

    name = "privatesnn"
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 2, Eq. 3-5"
    presets: ClassVar = {name: {**PRESETS[name], "epochs": epochs} for name, epochs in EPOCHS.items()}

    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork:  # noqa: ARG002
        params = self.params
        neuron = Neuron(
            params.leak,
            reset="soft",
            detach_reset=params.detach_reset,
            surrogate=Surrogate("triangle", params.surrogate_width, params.surrogate_height),
        )
        config = SpikingConfig(params.timesteps or context.timesteps, params.encoder, neuron, context.precision)
        network = convert_datafree(ann, params, config, context)
        if params.cet:
            encrypt(network, ann, synthetic_set(ann, params, context), params, context)
        return network


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
    images, device = synthetic["images"], context.device
    soft = synthetic["soft_labels"]
    if params.hard_labels:
        soft = functional.one_hot(synthetic["intended"], ann.classes).float()
    if params.dropout is not None:
        for module in network.modules():
            if isinstance(module, TimeFixedDropout):
                module.p = params.dropout
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
    total = params.epochs * math.ceil(len(images) / params.batch_size)
    done = 0
    for _ in range(params.epochs):
        for index in torch.randperm(len(images), generator=context.generator).split(params.batch_size):
            x = images[index].to(device).float() / 255
            with torch.no_grad():
                teacher = ann(x) if m else None
            logits = network(x, seed=context.seed()) * loss_scale
            loss = (1 - m) * functional.cross_entropy(logits, soft[index].to(device))
            if teacher is not None:
                divergence = functional.kl_div(
                    (logits / params.tau).log_softmax(1), (teacher / params.tau).log_softmax(1),
                    reduction="batchmean", log_target=True,
                )  # fmt: skip
                loss = loss + m * params.tau**2 * divergence
            if not math.isfinite(loss.item()):
                raise NumericalError(f"privatesnn: the loss is {loss.item()} at step {done} of encryption training")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            context.progress("encrypting weights", done, total)
        schedule.step()
    network.eval().requires_grad_(False)

"""Differentially private training: what is deployed is converted from an ANN that DP-SGD trained on the private images.

All that touches them is the training, and all that comes after it is computed from its outcome alone, so that the
deployed network has the training's guarantee: thresholds are found on images that are synthesised from the private ANN,
as ``datafree`` finds them. Maxima over training images, as in ``han2020``, would give images away at no epsilon.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses.controls import untrained
from leakbench.defenses.datafree import DataFreeParams, convert_datafree
from leakbench.defenses.synthesis import PRESETS, SynthesisParams
from leakbench.errors import NotApplicable, NumericalError, UsageError
from leakbench.snn import EncoderName, SpikingNetwork
from leakbench.snn.folding import has_batch_norm

_LARGEST = 1e4
"""noise multiplier beyond which nothing is learned"""
_BISECTIONS = 30
_GRADIENTS = 2**24
"""numbers in the gradients of images that are held at once: memory, and nothing else, follows from it"""


class DpSgdParams(SynthesisParams):
    """Parameters of private training, and of the data-free conversion after it."""

    epsilon: float = Field(8.0, gt=0, le=1000, description="of the guarantee: the noise is chosen for it")
    noise_multiplier: float | None = Field(
        None, gt=0, le=_LARGEST, description="sigma, in the place of epsilon, which then follows from it"
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="of the guarantee; of n training images 1 / 2n, where it is not below 1 / n"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="C, the norm that the gradient of an image is cut to")
    epochs: int = Field(30, ge=1, description="steps are as many as have each image drawn so often on average")
    batch_size: int = Field(512, ge=1, le=100_000, description="images a step on average: each is drawn on its own")
    lr: float = Field(1.0, gt=0, description="SGD's learning rate; falls to zero along a cosine")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD, on gradients that have their noise already")
    dropout: float = Field(0.0, ge=0, lt=1, description="in training, where the ANN has dropout")
    images: int = Field(512, ge=1, description="synthetic images on which thresholds are found")
    scale: float = Field(0.5, gt=0, le=1, description="thresholds are scale * maximum")
    encoder: EncoderName = Field("poisson", description="poisson (signed rate code) or direct (constant current)")


class DpSgd(Defense[DpSgdParams]):
    """DP-SGD: noise on clipped gradients of single images, from the first step on; then RMP on synthetic images.

    Takes networks of convolutions and linear layers without batch norm, which would mix the images of a batch. The
    guarantee is for one image more or less, by Renyi accounting of Poisson sampling, and takes the number of training
    images as known. Noise is from torch's generators, which are no cryptographic ones. Thresholds are below the maxima,
    which few inputs of a private ANN come near: at small T it would be silent.
    """

    name = "dpsgd"
    version = 3
    cites = "Abadi et al.: Deep Learning with Differential Privacy, CCS 2016, Algorithm 1; gradients by opacus"
    presets: ClassVar = PRESETS

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        if importlib.util.find_spec("opacus") is None:
            raise NotApplicable("dpsgd needs opacus: pip install opacus")
        private = self._trained(ann, data, context)
        # what others share of this ANN was made from the one that was trained without privacy
        alone = replace(context, shared_store=None)
        synthesis = {name: getattr(self.params, name) for name in SynthesisParams.model_fields}
        converted = DataFreeParams(
            **synthesis, images=self.params.images, scale=self.params.scale, encoder=self.params.encoder
        )
        return convert_datafree(private, converted, alone)

    def _trained(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:
        """A network of the ANN's architecture, trained from scratch."""
        from opacus.grad_sample import GradSampleModule  # takes seconds to load
        from opacus.optimizers import DPOptimizer

        params, count = self.params, len(data)
        # with 1 / n and more, to publish one of the images would be private
        delta = params.delta if params.delta < 1 / count else 1 / (2 * count)
        network = _blank(ann, context)
        # every image is in the training set, drawn or not
        images, labels = data.pixels(torch.arange(count))
        rate = min(1.0, params.batch_size / count)
        steps = math.ceil(params.epochs / rate)
        noise = params.noise_multiplier or noise_for(params.epsilon, delta, rate, steps)
        context.finding("epsilon, claimed", epsilon_of(noise, delta, rate, steps))
        context.finding("delta", delta)
        context.finding("noise multiplier", noise)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = params.dropout
        model = GradSampleModule(network.train(), loss_reduction="sum")
        sgd = torch.optim.SGD(model.parameters(), lr=params.lr, momentum=params.momentum)
        noises = torch.Generator(context.device).manual_seed(context.seed())
        optimizer = DPOptimizer(
            sgd, noise_multiplier=noise, max_grad_norm=params.max_grad_norm,
            expected_batch_size=rate * count, generator=noises,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
        together = max(1, _GRADIENTS // sum(parameter.numel() for parameter in network.parameters()))
        what = "training privately"
        loop = context.loop(what)
        with torch.random.fork_rng(devices=[]):
            # dropout draws from the global generator: seeded here, given back afterwards
            torch.manual_seed(context.seed())
            for step in loop.steps(steps, network=network, optimizer=sgd, schedule=schedule, noises=noises):
                drawn = (torch.rand(count, generator=context.generator) < rate).nonzero().squeeze(1)
                chunks = drawn.split(together)  # one at least, of no image where none was drawn
                for number, chunk in enumerate(chunks, start=1):
                    optimizer.zero_grad(set_to_none=True)
                    _loss(model, images[chunk], labels[chunk], context).backward()
                    # gradients are cut and summed chunk by chunk; noise is added once, to the sum of all
                    optimizer.signal_skip_step(number < len(chunks))
                    optimizer.step()
                schedule.step()
                context.progress(what, step + 1, steps)
        model.remove_hooks()
        for parameter in network.parameters():
            if not torch.isfinite(parameter).all():
                raise NumericalError("dpsgd: weights are NaN or infinite: lower the learning rate")
            for name in ("grad_sample", "summed_grad", "_forward_counter"):
                if hasattr(parameter, name):
                    delattr(parameter, name)
        return network.eval().requires_grad_(False)


def _loss(model: nn.Module, images: Tensor, labels: Tensor, context: DefenseContext) -> Tensor:
    """Summed over a batch, which may have no image."""
    # opacus' hooks want inputs that have a gradient
    logits = model((images.to(context.device).float() / 255).requires_grad_())
    return functional.cross_entropy(logits, labels.to(context.device), reduction="sum")


def _blank(ann: ImageClassifier, context: DefenseContext) -> ImageClassifier:
    """A network of the same shape with fresh weights. NotApplicable where anything of the trained one would stay."""
    if has_batch_norm(ann.body):
        raise NotApplicable(
            f"dpsgd needs a gradient of each image on its own, and the batch norms of {ann.arch} mix those of a batch: "
            "take a model without, as vgg4, vgg5, vgg9 or vgg16"
        )
    for name, module in ann.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if own and not isinstance(module, nn.Conv2d | nn.Linear):
            raise NotApplicable(
                f"dpsgd takes networks of convolutions and linear layers: {name!r} of {ann.arch} is a "
                f"{type(module).__name__}"
            )
    return untrained(ann, context).requires_grad_(True)


def epsilon_of(noise: float, delta: float, rate: float, steps: int) -> float:
    """Epsilon of so many steps of the subsampled Gaussian mechanism with noise multiplier ``noise``, at ``delta``.

    By Renyi accounting (Mironov et al. 2019), opacus'. ``rate``: the probability with which an image is in a step.
    """
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        # that other orders might give a smaller epsilon: this one holds all the same
        warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
        return float(accountant.get_epsilon(delta))


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The least noise multiplier, to six digits, whose epsilon is no more than that; UsageError where there is none."""
    low, high = 0.0, 1.0
    while epsilon_of(high, delta, rate, steps) > epsilon:
        low, high = high, 2 * high
        if high > _LARGEST:
            raise UsageError(
                f"dpsgd.epsilon: {epsilon:g} needs more noise than {_LARGEST:g}: raise it or take fewer epochs"
            )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if epsilon_of(middle, delta, rate, steps) > epsilon:
            low = middle
        else:
            high = middle
        if high - low < 1e-6 * high:
            break
    return high

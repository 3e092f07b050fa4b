"""Published defences of ANNs that are meant to hold; they carry over by conversion and are judged like any other."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, ShuffledPasses, TrainingData
from leakbench.defenses.controls import untrained
from leakbench.defenses.conversion import Han2020
from leakbench.defenses.finetuned import FinetunedParams, collected, finetuned
from leakbench.errors import NumericalError
from leakbench.models.training import cross_entropy
from leakbench.snn import SpikingNetwork


class NegativeSmoothingParams(Params):
    """How negative, and how the network is trained on from the ANN."""

    epochs: int = Field(6, ge=1, description="passes over the training images, the second half of training")
    least_steps: int = Field(900, ge=0, description="as many more passes as make so many steps of the optimiser")
    batch_size: int = Field(64, ge=1, le=10_000, description="images a step")
    lr: float = Field(3e-4, gt=0, description="Adam's rate; a tenth from half of the steps on, less again from 80 %")
    smoothing: float = Field(-0.05, gt=-1, lt=0, description="alpha, in force from 50 % of these steps on")


class NegativeLabelSmoothing(Defense[NegativeSmoothingParams]):
    """Label smoothing with a negative factor: the loss is (1 - a) CE(y) + a mean over all classes k of CE(k), a < 0.

    It rewards, without end, whatever takes probability from the other classes. The authors' attack (PPA, in a GAN's
    latent space) then finds worse images than on an undefended network. Schedule and optimiser are those of their code,
    train_model.py of LukasStruppek/Plug-and-Play-Attacks: a = 0 in the first half of training, which the ANN stands for
    here; a rises evenly to alpha / 2 over the next quarter; then it is alpha. Their rate is 1e-3. Converted as
    ``han2020`` does.

    Meant to hold: whatever ``right_verdict`` says is what is expected here, not what is known.
    """

    name = "negative_label_smoothing"
    cites = (
        "Struppek, Hintersdorf, Kersting: Be Careful What You Smooth For: Label Smoothing Can Be a Privacy Shield but "
        "Also a Catalyst for Model Inversion Attacks, ICLR 2024"
    )
    right_verdict: ClassVar[str] = "leaks or inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        network = copy.deepcopy(ann).requires_grad_(True).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=params.lr)
        batches = ShuffledPasses(len(data), params.batch_size, context.generator)
        total = max(params.epochs, math.ceil(params.least_steps / batches.batches)) * batches.batches
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [total // 2, total * 4 // 5], gamma=0.1)
        loop = context.loop("negative smoothing")
        for step in loop.steps(
            total, network=network, optimizer=optimizer, schedule=schedule, batches=batches, data=data
        ):
            images, labels = (x.to(context.device) for x in data.take(batches.batch(step)))
            loss = smoothed_cross_entropy(network(images), labels, factor(step / total, params.smoothing))
            if not math.isfinite(loss.item()):
                raise NumericalError(f"{self.name}: the loss is {loss.item()} at step {step}: lower {self.name}.lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            context.progress("negative smoothing", step + 1, total)
        deployed = Han2020(encoder="direct")(network.eval().requires_grad_(False), data, context)
        assert isinstance(deployed, SpikingNetwork)
        return deployed


def factor(part: float, alpha: float) -> float:
    """The smoothing factor when ``part`` of the second half of training is over; it jumps as the authors' does."""
    return alpha * part if part < 0.5 else alpha


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Mean cross-entropy of logits [B, classes] with labels smoothed by ``alpha``, which may be negative."""
    surprise = -logits.log_softmax(1)
    return (1 - alpha) * surprise.gather(1, labels[:, None]).mean() + alpha * surprise.mean()


class RandomErasingParams(FinetunedParams):
    """How much is erased, and how the network is trained, from scratch."""

    epochs: int = Field(10, ge=1, description="passes over the training images")
    least_steps: int = Field(900, ge=0, description="as many more passes as make so many steps of the optimiser")
    lr: float = Field(0.1, gt=0, description="highest learning rate of SGD's one-cycle schedule")
    smallest: float = Field(0.1, gt=0, le=1, description="least erased share of an image")
    largest: float = Field(0.4, gt=0, le=1, description="largest erased share of an image")


class RandomErasing(Defense[RandomErasingParams]):
    """Random erasing (MIDRE): trained from scratch on images of which a random square is always missing.

    The network never sees a whole object, so that (the authors find) features of reconstructed images, which are whole,
    differ from those of private ones. A square of a share of the image's pixels drawn evenly from [0.1, a_h], anywhere,
    is set to the mean pixel, in every image: configs/training/targets of ngoc-nguyen-0/MIDRE_TMLR, where a_h is .8 for
    one network of faces. The mean is that of the private images, where the authors take ImageNet's. Converted as
    ``han2020`` does.

    Meant to hold: whatever ``right_verdict`` says is what is expected here, not what is known.
    """

    name = "random_erasing"
    cites = "Tran, Nguyen et al.: Random Erasing vs. Model Inversion: A Promising Defense or a False Hope?, TMLR 2025"
    right_verdict: ClassVar[str] = "leaks or inconclusive"

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> SpikingNetwork:
        params = self.params
        images, labels = collected(data, context)
        mean = (images.float() / 255).mean((0, 2, 3)).view(-1, 1, 1)

        def objective(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(network, erased(x, mean.to(x.device), params.smallest, params.largest), y)

        learnt = finetuned(untrained(ann, context), {}, images, labels, params, context, objective)
        network = Han2020(encoder="direct")(learnt, data, context)
        assert isinstance(network, SpikingNetwork)
        return network


def erased(images: Tensor, value: Tensor, smallest: float, largest: float) -> Tensor:
    """``images`` [B, C, H, W] with a square of each set to ``value`` [C, 1, 1], of a random share of its pixels."""
    height, width = images.shape[2:]

    def drawn() -> Tensor:
        # from the global generator, which training seeds and keeps
        return torch.rand(len(images), 1, 1, device=images.device)

    sides = ((smallest + (largest - smallest) * drawn()) * height * width).sqrt().round().clamp(max=min(height, width))
    top, left = (drawn() * (height - sides + 1)).floor(), (drawn() * (width - sides + 1)).floor()
    rows = torch.arange(height, device=images.device).view(1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    inside = (rows >= top) & (rows < top + sides) & (columns >= left) & (columns < left + sides)
    return torch.where(inside[:, None], value, images)

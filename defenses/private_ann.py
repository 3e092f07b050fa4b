"""Private ANNs: a student that has seen synthetic images alone is deployed in the teacher's place; nothing spikes.

The "private ANN approaches" of PrivateSNN's Table 1. A fresh network of the teacher's architecture learns what the
teacher answers to images that were made from the teacher's own weights; no private image is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from leakbench.contracts import Context, Defense, DefenseContext, ImageClassifier, Params, ShuffledPasses, TrainingData
from leakbench.defenses.synthesis import (
    StatisticsParams,
    SynthesisParams,
    crop_and_flip,
    statistics_set,
    two_betas_set,
)
from leakbench.errors import NotApplicable, NumericalError
from leakbench.models import Architecture, model_names
from leakbench.models.fast_convolutions import fast_convolutions
from leakbench.models.storage import build_ann
from leakbench.models.training import augment
from leakbench.snn.folding import has_batch_norm

View = Callable[[Tensor, torch.Generator], Tensor]
"""images [B, C, H, W] in [0, 1] -> as the student sees them in one step"""


class StudentParams(Params):
    """How the student learns; the defaults are Nayak's but for the number of epochs and the cosine."""

    epochs: int = Field(60, ge=1, description="passes over the synthetic set")
    batch_size: int = Field(64, ge=1, description="synthetic images a step")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate; falls to zero along a cosine")
    tau: float = Field(20.0, gt=0, description="distillation temperature")


class ZskdParams(SynthesisParams, StudentParams):
    """Parameters of zero-shot knowledge distillation."""

    beta: float = Field(
        1.0, gt=0, description="sharpness of the Dirichlet labels of half the set; the other half has a tenth of it"
    )
    synthesis_steps: int = Field(250, ge=1, description="optimiser steps an image (the authors: 1500)")
    synthesis_temperature: float = Field(20.0, gt=0, description="temperature of the soft cross-entropy")


class Zskd(Defense[ZskdParams]):
    """Zero-shot knowledge distillation: a student taught by data impressions.

    The authors take 1500 steps of 1e-3 (``paper``); ``quick`` and ``standard`` take fewer and larger ones. Pixels are
    clamped at each step, where the authors' code stretches the whole batch to [0, 1].
    """

    name = "zskd"
    version = 2
    cites = "Nayak et al.: Zero-Shot Knowledge Distillation in Deep Networks, ICML 2019, Algorithm 1"
    spiking = False
    presets: ClassVar = {
        "quick": {"samples": 500, "synthesis_steps": 100, "epochs": 40},
        "standard": {"samples": 1000, "synthesis_steps": 100},
        "paper-cpu": {"samples": 1000, "synthesis_steps": 100},
        "paper": {"samples": 40_000, "synthesis_steps": 1500, "synthesis_lr": 1e-3, "epochs": 500},
    }

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:  # noqa: ARG002
        images = two_betas_set(ann, self.params, context)["images"]

        def view(x: Tensor, generator: torch.Generator) -> Tensor:
            return affine_views(x, context.flips, generator)

        return taught(ann, images, view, self.params, context)


class KnowledgeWithinParams(StatisticsParams, StudentParams):
    """Parameters of the student of images by batch-norm statistics."""


class KnowledgeWithin(Defense[KnowledgeWithinParams]):
    """A student taught by images with which the teacher's batch norms see their running statistics.

    The authors' students are the teacher itself with fewer bits; a fresh one learns less from as many images. Images
    are made in another way than by their public code, where the divergence is the same. There SGD takes 1000 steps of
    .1 (momentum .9, a tenth from step 800 on) from normal noise, on 128 images, each in four views (flips, resized
    crops, cutouts). The loss is the divergence's mean over layers, normalised images being one of them, and
    exp(-.0004 logit), with the square of what a Gaussian blur takes away in the place of total variation. Our weights
    were chosen for few steps of Adam and for small images. The images' own mean and deviation are not matched: these
    are statistics of private images that no layer of the network holds.
    """

    name = "knowledge_within"
    version = 3
    cites = "Haroush et al.: The Knowledge Within, CVPR 2020, BN-Statistics + Inception schemes"
    spiking = False
    presets: ClassVar = {
        "quick": {"samples": 500, "synthesis_steps": 100, "epochs": 40},
        "standard": {"samples": 1000, "synthesis_steps": 100},
        "paper-cpu": {"samples": 1000, "synthesis_steps": 100},
        "paper": {"samples": 40_000, "synthesis_steps": 1000, "epochs": 200},
    }

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> ImageClassifier:  # noqa: ARG002
        if not has_batch_norm(ann.body):
            model = Architecture.parse(ann.arch).label
            other = f"{model.removesuffix('max')}bn"
            raise NotApplicable(
                f"{self.name} reads batch-norm statistics: {model} has none; "
                f"take --model {other if other in model_names() else 'resnet20'}"
            )
        images = statistics_set(ann, self.params, context)["images"]
        views = crop_and_flip(ann, context)
        return taught(ann, images, lambda x, generator: augment(x, views, generator), self.params, context)


def taught(
    teacher: ImageClassifier, images: Tensor, view: View, params: StudentParams, context: Context
) -> ImageClassifier:
    """A fresh network of the teacher's architecture that learned its answers to ``images`` uint8 [N, C, H, W].

    The loss is tau^2 times the cross-entropy between softmax(teacher / tau) and softmax(student / tau) (Hinton et al.
    2015), without any label. The teacher is asked about the very view that the student gets, so views need not keep an
    image's class. Raises NumericalError when the loss is no number any more.
    """
    student = _fresh(teacher, context)
    optimizer = torch.optim.Adam(student.parameters(), lr=params.lr)
    batches = ShuffledPasses(len(images), params.batch_size, context.generator)
    total = params.epochs * batches.batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    loop = context.loop("teaching the student")
    with torch.random.fork_rng(devices=[]), fast_convolutions(student):
        # dropout draws from the global generator: seeded here, given back afterwards
        torch.manual_seed(context.seed())
        for step in loop.steps(total, student=student, optimizer=optimizer, schedule=schedule, batches=batches):
            x = view(images[batches.batch(step)].float() / 255, context.generator).to(context.device)
            with torch.no_grad():
                wanted = (teacher(x) / params.tau).softmax(1)
            loss = params.tau**2 * functional.cross_entropy(student(x) / params.tau, wanted)
            if not math.isfinite(loss.item()):
                raise NumericalError(f"the student's loss is {loss.item()} at step {step}: lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            context.progress("teaching the student", step + 1, total)
    return student.eval().requires_grad_(False)


def _fresh(teacher: ImageClassifier, context: Context) -> ImageClassifier:
    """An untrained network of the teacher's architecture, ready to be trained."""
    with torch.random.fork_rng(devices=[]):
        # layers draw weights of their own, which ours replace, from the global generator
        student = build_ann(teacher.arch, teacher.image_shape, teacher.classes, teacher.input_range, context.generator)
    student.precision = teacher.precision
    return student.to(context.device).train()


def affine_views(images: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W], each zoomed, shifted, turned and (``flips``) mirrored at random, each with probability 1/2.

    Up to 1 / 0.6 as large, by a fifth of the side in one of four directions, by up to 90 degrees either way. Nayak's
    code also turns images upside down, transposes them and adds noise, mirrors them whatever they show, and puts white
    beside shifted ones, where what comes from outside is black here.
    """
    count = len(images)

    def drawn(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    def some() -> Tensor:
        return torch.rand(count, generator=generator) < 0.5

    shift = 0.2 * functional.one_hot(torch.randint(2, (count,), generator=generator), 2)
    return affine(
        images,
        zoom=torch.where(some(), drawn(0.6, 1), 1.0),
        shift=shift * (some() * torch.where(some(), 1, -1))[:, None],
        angle=some() * drawn(-math.pi / 2, math.pi / 2),
        mirrored=some() & flips,
    )


def affine(images: Tensor, zoom: Tensor, shift: Tensor, angle: Tensor, mirrored: Tensor) -> Tensor:
    """Images [B, C, H, W] of which the middle part ``zoom`` [B] fills the frame, turned about the middle by ``angle``.

    ``shift`` [B, 2] is the way of the frame across and down, in sides; ``angle`` is in radians, counterclockwise;
    ``mirrored`` [B] images are flipped across afterwards. Bilinear; black outside.
    """
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    sign = torch.where(mirrored, -1.0, 1.0)
    # a side is two units long
    rows = [torch.stack([sign * cos, -sin, 2 * shift[:, 0]], 1), torch.stack([sign * sin, cos, 2 * shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

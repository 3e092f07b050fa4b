"""Synthetic images from an ANN's own weights: what data-free defences use in place of private data.

PrivateSNN, Algorithm 2, step 1, after Nayak et al. 2019 ("data impressions"); method, section 2.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import Context, ImageClassifier, Params
from leakbench.errors import NotApplicable, UsageError

VERSION = 1


class SynthesisParams(Params):
    """How the synthetic set is made. Defences with the same values share one set."""

    samples: int = Field(2000, ge=1, description="synthetic images in all, the same number for each class")
    beta: float = Field(10.0, gt=0, description="sharpness of the Dirichlet labels: alpha = beta * similarity + 1e-4")
    synthesis_steps: int = Field(250, ge=1, description="optimiser steps an image (the authors: 2499)")
    synthesis_lr: float = Field(5e-2, gt=0, description="Adam's learning rate on pixels (the authors: 1e-3)")
    synthesis_temperature: float = Field(
        1.0,
        gt=0,
        description="temperature of the soft cross-entropy (the authors: 20, with their small steps)",
    )


# one set for all data-free defences of a preset
PRESETS = {"quick": {"samples": 500}, "standard": {"samples": 2000}, "paper": {"samples": 5000}}


def class_similarity(ann: ImageClassifier) -> Tensor:
    """Cosine of the last layer's weight rows, each row min-max scaled to [0, 1]; [classes, classes].

    Eq. 2 of the paper prints squared norms, its code divides by the norms: the cosine.
    """
    last = [module for module in ann.body.modules() if isinstance(module, nn.Linear)]
    if not last or last[-1].out_features != ann.classes:
        raise NotApplicable("data-free synthesis reads class similarities off a last linear layer: there is none")
    rows = functional.normalize(last[-1].weight.detach().double().cpu(), dim=1)
    similarity = rows @ rows.T
    similarity = similarity - similarity.amin(1, keepdim=True)
    return similarity / similarity.amax(1, keepdim=True).clamp(min=1e-12)


def synthetic_set(ann: ImageClassifier, params: SynthesisParams, context: Context) -> dict[str, Tensor]:
    """The synthetic set of a network: built once, then shared through ``context``.

    ``images`` uint8 [N, C, H, W], ``soft_labels`` [N, classes] (the drawn y), ``intended`` [N] (the class c whose
    concentration alpha_c it was drawn with).
    """
    if params.samples < ann.classes:
        raise UsageError(f"samples must be at least the number of classes, {ann.classes}, got {params.samples}")
    chosen = {name: getattr(params, name) for name in SynthesisParams.model_fields}
    return context.shared("synthetic", VERSION, chosen, lambda own: _synthesise(ann, params, own))


def _synthesise(ann: ImageClassifier, params: SynthesisParams, context: Context) -> dict[str, Tensor]:
    alpha = params.beta * class_similarity(ann) + 1e-4
    intended = torch.arange(ann.classes).repeat_interleave(params.samples // ann.classes)
    # a Dirichlet draw is normalised gammas; torch's Dirichlet takes no generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed())
        soft = torch.distributions.Dirichlet(alpha[intended]).sample().float()
    images = torch.rand(len(intended), *ann.image_shape, generator=context.generator)
    parts = list(zip(images.split(500), soft.split(500), strict=True))
    made = []
    for number, (start, labels) in enumerate(parts):
        x = start.to(context.device).requires_grad_()
        y = labels.to(context.device)
        optimizer = torch.optim.Adam([x], lr=params.synthesis_lr)
        for step in range(params.synthesis_steps):
            context.progress(
                "synthesising images",
                number * params.synthesis_steps + step,
                len(parts) * params.synthesis_steps,
            )
            loss = functional.cross_entropy(ann(x) / params.synthesis_temperature, y, reduction="sum")
            (x.grad,) = torch.autograd.grad(loss, x)
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        made.append((x.detach() * 255).round().to(torch.uint8).cpu())
    return {"images": torch.cat(made), "soft_labels": soft, "intended": intended}

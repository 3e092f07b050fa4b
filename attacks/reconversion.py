"""Attack scenario 1 of PrivateSNN: put ReLUs back, then draw class pictures with Algorithm 1."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import GradientWatch, blurred
from leakbench.contracts import Access, Attack, AttackContext, ImageClassifier, Params, Variables, Victim
from leakbench.contracts.precision import arithmetic
from leakbench.snn import reconverted

_TOGETHER = 250
"""images that are in memory at once with what their gradients need, as in a search"""


class ReconversionParams(Params):
    """Algorithm 1's parameters; what the paper omits is that of the code it derives from (docs/method.md, Attacks)."""

    iterations: int = Field(150, ge=1, description="N")
    eta: float = Field(6.0, gt=0, description="step size of the ascent on the logit, in the network's input range")
    blur_every: int = Field(4, ge=0, description="f_blur: blur before every so many-th step; 0: never")
    sigma: float = Field(1.0, gt=0, description="standard deviation of the blur, pixels")
    weight_decay: float = Field(1e-4, ge=0, description="pull towards the middle value 0 of the input range")


class Reconversion(Attack[ReconversionParams]):
    """Paper attack 1: LIF back to ReLU, then plain gradient ascent on the class logit with blur (Algorithm 1)."""

    name = "reconversion"
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 1 and attack scenario 1"

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params = self.params
        probes = torch.rand(64, *victim.image_shape, generator=torch.Generator().manual_seed(0)).to(context.device)
        ann = reconverted(victim.network, probes, seed=0)
        low, high = ann.input_range
        start = torch.rand(len(targets), *victim.image_shape, generator=context.generator)
        drawn, watch = Variables(x=ann.input_range(start.to(context.device))), GradientWatch()
        for n in context.steps(params.iterations, "reconversion: ascending logits", drawn=drawn, watch=watch):
            x = drawn.x
            if params.blur_every and (n + 1) % params.blur_every == 0:
                x = blurred(x, params.sigma)
            parts = zip(x.split(_TOGETHER), targets.split(_TOGETHER), strict=True)
            gradient = torch.cat([_uphill(ann, part, wanted) for part, wanted in parts])
            watch.see(gradient)
            with torch.no_grad():
                drawn.x = (x + params.eta * (gradient - params.weight_decay * x)).clamp(low, high)
            context.snapshot((drawn.x - low) / (high - low))
        watch.check(self.name)
        return (drawn.x - low) / (high - low)


def _uphill(ann: ImageClassifier, x: Tensor, targets: Tensor) -> Tensor:
    """Gradients of the logits of ``targets`` [B] with respect to ``x`` [B, C, H, W], in the input range."""
    x = x.detach().requires_grad_(True)
    with arithmetic(ann.precision, x.device):
        logits = ann.body(x)
    (gradient,) = torch.autograd.grad(logits.float().gather(1, targets[:, None]).sum(), x)
    return gradient

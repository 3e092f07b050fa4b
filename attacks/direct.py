"""Attack scenario 2 of PrivateSNN: gradients through the spiking network itself (Algorithm 3)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import GradientWatch
from leakbench.contracts import Access, Attack, Context, Params, Victim
from leakbench.snn import SpikingNetwork


class DirectParams(Params):
    """Algorithm 3's parameters; the paper does not give N."""

    iterations: int = Field(100, ge=1, description="N")
    zeta: float = Field(0.01, gt=0, description="step size, in the network's input range")


class Direct(Attack[DirectParams]):
    """Paper attack 2: surrogate gradients at the first layer, deconvolved with its weights (Algorithm 3)."""

    name = "direct"
    needs = Access.WEIGHTS
    version = 2
    effort = "iterations"
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 3; Sharmin et al., ECCV 2020"
    presets: ClassVar = {"quick": {"iterations": 20}, "standard": {"iterations": 50}}

    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        network = victim.network
        if isinstance(network, SpikingNetwork):
            network.reseed(context.seed())
        scale = network.input_range.scale
        start = torch.rand(len(targets), *victim.image_shape, generator=context.generator)
        parts = []
        # as many at once as need no recomputing on the way back
        size = max(8, network.batch_in_memory()) if isinstance(network, SpikingNetwork) else 100
        batches = list(zip(start.split(size), targets.split(size), strict=True))
        for number, (images, wanted) in enumerate(batches):
            x = images.to(context.device)
            watch = GradientWatch()
            for _ in context.steps(self.params.iterations, f"direct: batch {number + 1} of {len(batches)}"):
                x.requires_grad_(True)
                # Deconvolving G = sum_t dy_c/dI_1(t) / T with W_1 is the gradient that passes straight through the
                # Poisson encoder. Algorithm 3's y_c is u_L(T), T times the mean that the network puts out, which
                # takes the place of 1/T. One factor 1/scale leads to the input range, one back to images.
                (gradient,) = torch.autograd.grad(network(x).gather(1, wanted[:, None]).sum(), x)
                watch.see(gradient)
                with torch.no_grad():
                    x = (x + self.params.zeta * gradient / scale**2).clamp(0, 1)
            watch.check("direct")
            parts.append(x.detach())
        return torch.cat(parts)

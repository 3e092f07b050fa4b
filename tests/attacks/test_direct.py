"""Algorithm 3 with hooks: gradients at the first convolution, deconvolved with its weights by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.attacks.direct import Direct
from leakbench.contracts import Access, Context, ImageClassifier, Victim
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, balance_thresholds


def victim(low: float, encoder: str, leak: float) -> SpikingNetwork:
    """A small convolutional network on 3x6x6 images, input range [low, 1]."""
    body = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(45, 4, bias=False),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    for parameter in body.parameters():
        nn.init.kaiming_normal_(parameter, generator=generator)
    ann = ImageClassifier(body, (3, 6, 6), 4, (low, 1.0)).eval().requires_grad_(False)
    network = SpikingNetwork.from_ann(ann, SpikingConfig(12, encoder, Neuron(leak)))  # type: ignore[arg-type]
    balance_thresholds(network, torch.rand(20, 3, 6, 6, generator=generator), seed=0, scale=0.7)
    return network


def algorithm_3(network: SpikingNetwork, targets: Tensor, start: Tensor, seed: int, steps: int, zeta: float) -> Tensor:
    """Images in [0, 1]. G is the mean over time of the gradient of y_c = u_L(T) at the first convolution's output.

    The network puts out u_L(T) / T, so u_L(T) is T times that.
    """
    low, high = network.input_range
    convolution = network.body[0]  # type: ignore[index]
    network.reseed(seed)
    network.fast = False  # the body itself, so that its first layer can be watched
    caught: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        out = out.detach().requires_grad_(True)
        caught.append(out)
        return out

    convolution.register_forward_hook(keep)
    x = start * (high - low) + low
    timesteps = network.config.timesteps
    for _ in range(steps):
        caught.clear()
        y = network((x - low) / (high - low)) * timesteps
        y.gather(1, targets[:, None]).sum().backward()
        (at_first_layer,) = caught
        assert at_first_layer.grad is not None
        over_time = at_first_layer.grad.view(timesteps, len(x), *at_first_layer.shape[1:])
        g = over_time.sum(0) / timesteps
        step = functional.conv_transpose2d(g, convolution.weight, padding=1)
        x = torch.clamp(x + zeta * step, low, high).detach()
    return (x - low) / (high - low)


@pytest.mark.parametrize("low", [0.0, -1.0], ids=["grey range", "colour range"])
@pytest.mark.parametrize(("encoder", "leak"), [("poisson", 1.0), ("poisson", 0.95), ("direct", 1.0)])
@pytest.mark.parametrize(("steps", "zeta"), [(1, 0.01), (4, 0.2)])
def test_the_images_are_those_of_algorithm_3(low: float, encoder: str, leak: float, steps: int, zeta: float) -> None:
    network = victim(low, encoder, leak).requires_grad_(False)
    targets = torch.tensor([0, 1, 2, 3])
    context = Context(torch.Generator().manual_seed(5))
    images = Direct(iterations=steps, zeta=zeta)(Victim(network, Access.WEIGHTS), targets, context).images

    generator = torch.Generator().manual_seed(5)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    start = torch.rand(4, 3, 6, 6, generator=generator)
    expected = algorithm_3(copy.deepcopy(network), targets, start, seed, steps, zeta)
    moved = (expected - start).abs().max()
    assert moved > (0.02 if zeta > 0.1 else 1e-4)
    # float32: a pixel may differ in its last digits; no spike hangs on them here
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-3 * moved.item())


def test_steps_are_taken_in_the_input_range() -> None:
    """The same network written for [0, 1] and for [-1, 1] images is the same attack up to the step's unit."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    for parameter in body.parameters():
        nn.init.uniform_(parameter, 0.1, 0.5, generator=torch.Generator().manual_seed(1))
    moves = []
    for input_range in ((0.0, 1.0), (-1.0, 1.0)):
        ann = ImageClassifier(body, (1, 2, 2), 2, input_range).eval().requires_grad_(False)
        context = Context(torch.Generator().manual_seed(5))
        targets = torch.tensor([0, 1])
        images = Direct(iterations=1, zeta=0.01)(Victim(ann, Access.WEIGHTS), targets, context).images
        start = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(5))
        x = ann.input_range(start).requires_grad_()
        (gradient,) = torch.autograd.grad(body(x).gather(1, targets[:, None]).sum(), x)
        # zeta dy/du in the input range; a unit of it is 1 / scale of an image unit
        expected = (start + 0.01 * gradient / ann.input_range.scale).clamp(0, 1)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
        moves.append((images - start).abs().max().item())
    assert min(moves) > 1e-4


def test_the_defaults_are_the_papers() -> None:
    assert Direct().params.zeta == 0.01


def test_large_orders_are_worked_off_in_batches(digits_ann: ImageClassifier) -> None:
    targets = torch.arange(10).repeat(15)
    context = Context(torch.Generator().manual_seed(0))
    made = Direct(iterations=2)(Victim(digits_ann, Access.WEIGHTS), targets, context)
    assert made.images.shape == (150, 1, 8, 8)
    start = torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rise = (digits_ann(made.images) - digits_ann(start)).gather(1, targets[:, None])
    assert (rise > 0).all()

"""Algorithm 1 written down a second time, from the paper, and compared step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.attacks import reconversion
from leakbench.attacks.reconversion import Reconversion
from leakbench.contracts import Access, AttackContext, ImageClassifier, Victim
from leakbench.snn import SpikingConfig, SpikingNetwork


def blur(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian of radius 3 sigma on one channel [H, W], pixel by pixel, mirrored at the borders."""
    radius = round(3 * sigma)
    height, width = image.shape
    weights = {
        (i, j): math.exp(-(i * i + j * j) / (2 * sigma**2))
        for i in range(-radius, radius + 1)
        for j in range(-radius, radius + 1)
    }
    total = sum(weights.values())

    def mirrored(i: int, side: int) -> int:
        i = abs(i)
        return 2 * (side - 1) - i if i >= side else i

    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            out[y, x] = sum(
                w / total * image[mirrored(y + i, height), mirrored(x + j, width)] for (i, j), w in weights.items()
            )
    return out


def algorithm_1(
    network: ImageClassifier, target: int, start: Tensor, steps: int, eta: float, every: int, sigma: float, decay: float
) -> Tensor:
    """One image [C, H, W] in [0, 1] from ``start``; the ascent runs in the network's input range."""
    low, high = network.input_range
    x = start * (high - low) + low
    for n in range(1, steps + 1):
        if every and n % every == 0:
            x = torch.stack([blur(channel, sigma) for channel in x])
        x = x.detach().requires_grad_(True)
        network.body(x[None])[0, target].backward()
        assert x.grad is not None
        x = torch.clamp(x + eta * (x.grad - decay * x), low, high)
    return (x.detach() - low) / (high - low)


def colour_ann(classes: int = 4) -> ImageClassifier:
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, classes, bias=False)
    )
    generator = torch.Generator().manual_seed(8)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return ImageClassifier(body, (3, 6, 6), classes, (-1.0, 1.0)).eval().requires_grad_(False)


def made(network: ImageClassifier | SpikingNetwork, targets: Tensor, **params: float) -> tuple[Tensor, Tensor]:
    """The attack's start and images."""
    context = AttackContext(torch.Generator().manual_seed(3))
    images = Reconversion(**params)(Victim(network, Access.WEIGHTS), targets, context).images
    start = torch.rand(len(targets), *network.image_shape, generator=torch.Generator().manual_seed(3))
    return start, images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "eta", "every", "sigma", "decay"),
    [
        (1, 0.5, 4, 1.0, 1e-4),
        (3, 0.5, 4, 1.0, 0.1),
        (9, 0.5, 4, 1.0, 1e-4),
        (9, 6.0, 4, 1.0, 1e-4),
        (5, 0.5, 2, 0.7, 0.0),
        (5, 0.5, 0, 1.0, 1e-4),
    ],
)
def test_the_images_are_those_of_algorithm_1(steps: int, eta: float, every: int, sigma: float, decay: float) -> None:
    network, targets = colour_ann(), torch.tensor([0, 3, 1])
    start, images = made(network, targets, iterations=steps, eta=eta, blur_every=every, sigma=sigma, weight_decay=decay)
    for image, first, target in zip(images, start, targets.tolist(), strict=True):
        expected = algorithm_1(network, target, first, steps, eta, every, sigma, decay)
        # float32, at most nine steps
        torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5)


def test_many_images_are_drawn_in_parts_that_change_none(monkeypatch: pytest.MonkeyPatch) -> None:
    network, targets, sizes = colour_ann(), torch.arange(600) % 4, []
    network.body.register_forward_hook(lambda _module, args, _out: sizes.append(len(args[0])))
    _, images = made(network, targets, iterations=5)
    assert max(sizes) == 250
    monkeypatch.setattr(reconversion, "_TOGETHER", 1000)
    assert torch.equal(made(network, targets, iterations=5)[1], images)
    assert max(sizes) == 600


def test_the_defaults_are_the_papers_and_the_methods() -> None:
    params = Reconversion().params
    assert (params.blur_every, params.eta) == (4, 6)
    assert (params.iterations, params.sigma, params.weight_decay) == (150, 1, 1e-4)


@pytest.mark.slow
def test_a_spiking_victim_is_attacked_through_its_relus(
    digits_ann: ImageClassifier, digits_snn: SpikingNetwork
) -> None:
    targets = torch.arange(10)
    start, images = made(digits_snn, targets, iterations=6)
    for image, first, target in zip(images[:3], start, targets.tolist(), strict=False):
        expected = algorithm_1(digits_ann, target, first, 6, 6.0, 4, 1.0, 1e-4)
        torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-4)
    _, ann_images = made(digits_ann, targets, iterations=6)
    torch.testing.assert_close(images, ann_images)


@pytest.mark.slow
def test_thresholds_do_not_matter_to_it(digits_ann: ImageClassifier) -> None:
    """Threshold scaling leaves the weights as they are: the attack sees the ANN whatever the thresholds."""
    networks = []
    for theta in (0.5, 3.0):
        network = SpikingNetwork.from_ann(digits_ann, SpikingConfig(4)).requires_grad_(False)
        for layer in network.neurons:
            layer.set_threshold(theta)
        networks.append(network)
    first, second = (made(network, torch.arange(10), iterations=5)[1] for network in networks)
    assert torch.equal(first, second)


def test_our_reference_blur_is_a_blur() -> None:
    spot = functional.pad(torch.ones(1, 1), (4, 4, 4, 4))
    out = blur(spot, 1.0)
    assert out.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert out[4, 5].item() / out[4, 4].item() == pytest.approx(math.exp(-0.5), rel=1e-6)

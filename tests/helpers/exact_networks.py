"""Networks for the fast path whose sums are exact, and what the plain and the fast path make of them.

Weights, biases, thresholds and what pooling and dropout divide by are (small multiples of) powers of two, so that sums
are exact in every order, on every processor: spikes have to be equal to the last one, and only gradients (whose
surrogates divide) may differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork

GRADIENT = 2e-5
"""largest difference of gradients, relative to the largest gradient: sums of some thousand terms in another order"""


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu1 = nn.Conv2d(2, 16, 3, padding=1), nn.ReLU()
        self.left, self.relu2 = nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU()
        self.right, self.relu3 = nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
        self.skip = nn.Conv2d(16, 32, 1, stride=2)
        self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.stem(x))
        x = self.relu3(self.right(self.relu2(self.left(x))) + self.skip(x))
        logits: Tensor = self.out(self.pool(x).flatten(1))
        return logits


class EarlyShortcut(nn.Module):
    """What enters is read once more behind two layers of neurons, and is kept until then."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(c, 16, 3, padding=1, bias=False) for c in (2, 16, 16))
        self.short, self.last = nn.Conv2d(2, 16, 1, bias=False), nn.Linear(16 * 64, 4)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        kept = self.short(x)
        y = self.relu2(self.second(self.relu1(self.first(x))))
        out: Tensor = self.last(self.relu3(self.third(y) + kept).flatten(1))
        return out


class Functional(nn.Module):
    """Pools and flattens by functions and not by modules, and reads the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu1 = nn.Conv2d(2, 16, 3, padding=1), nn.ReLU()
        self.hidden, self.relu2, self.out = nn.Linear(16 * 16, 32), nn.ReLU(), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(self.relu1(self.conv(x)), 2)
        logits: Tensor = self.out(self.relu2(self.hidden(x.view(x.size(0), -1))))
        return logits


class Twisted(nn.Module):
    """Its way depends on its input: there is no graph to be had."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.out = nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Linear(16 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.sum() > -1e9:
            x = self.relu(x)
        logits: Tensor = self.out(x.flatten(1))
        return logits


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


BODIES: dict[str, Callable[[], nn.Module]] = {
    "one convolution": lambda: chain(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4)),
    "vgg": lambda: chain(
        nn.Conv2d(2, 32, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(64, 48, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(48 * 4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 4),
    ),
    "pooling that leaves out a rim": lambda: chain(
        nn.Conv2d(2, 32, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 4),
    ),
    "kernels of all sizes": lambda: chain(
        nn.Conv2d(2, 16, (1, 3)), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, (5, 2), padding=1),
        nn.ReLU(), nn.Conv2d(16, 16, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 3 * 4, 4),
    ),
    "strides": lambda: chain(
        nn.Conv2d(2, 16, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 9, 4),
    ),
    "no kernel for these": lambda: chain(
        nn.Conv2d(2, 16, 3, padding="same"), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 10, 1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(10, 16, 1, stride=(1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4),
    ),
    "dropout between layers": lambda: chain(
        nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Identity(), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 4),
    ),
    "overlapping pooling": lambda: chain(
        nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4, stride=2, padding=1),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4),
    ),
    "linear alone": lambda: chain(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(),
                                  nn.Linear(16, 4)),
    "ends in neurons": lambda: chain(nn.Conv2d(2, 16, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 16),
                                     nn.ReLU()),
    "residual": Residual,
    "early shortcut": EarlyShortcut,
    "functions": Functional,
    "no graph": Twisted,
}  # fmt: skip
CLASSES = {"ends in neurons": 16}


def network_of(body: str, config: SpikingConfig, seed: int = 0, by_channel: bool = False) -> SpikingNetwork:
    generator = torch.Generator().manual_seed(seed)
    module = BODIES[body]()
    for parameter in module.parameters():
        parameter.data = torch.randint(-8, 9, parameter.shape, generator=generator) / 32
    classes = CLASSES.get(body, 4)
    ann = ImageClassifier(module, (2, 8, 8), classes, InputRange(-1, 1)).eval()
    network = SpikingNetwork.from_ann(ann, config)
    sources = [m for m in network.body.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer, source in zip(network.neurons, sources, strict=False):
        theta = torch.tensor(0.5)
        if by_channel:
            channels = source.weight.shape[0]
            theta = 2.0 ** torch.randint(-2, 1, (channels,), generator=generator)
            theta = theta[:, None, None] if isinstance(source, nn.Conv2d) else theta
        layer.set_threshold(theta)
        layer.initial = torch.tensor(0.25)
    return network


def images(count: int = 5, seed: int = 1) -> Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def both(network: SpikingNetwork, call: Callable[[SpikingNetwork], Any]) -> tuple[Any, Any]:
    """What the plain and the fast path give."""
    outcomes = []
    for fast in (False, True):
        network.fast = fast
        outcomes.append(call(network))
    return outcomes[0], outcomes[1]


def gradients(network: SpikingNetwork, x: Tensor) -> dict[str, Tensor]:
    """Of the images and of all parameters that want one, of a loss that weighs all logits differently."""
    network.zero_grad()
    x = x.clone().requires_grad_()
    logits = network(x, seed=3)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (logits * weights).sum().backward()
    assert x.grad is not None
    by_parameter = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return {"images": x.grad, **by_parameter}


def assert_alike(plain: dict[str, Tensor], fast: dict[str, Tensor]) -> None:
    assert plain.keys() == fast.keys()
    for name, expected in plain.items():
        assert expected.abs().max() > 0, f"{name}: no gradient to compare"
        difference = (expected - fast[name]).abs().max() / expected.abs().max()
        assert difference <= GRADIENT, f"{name}: {difference:.1e}"


CONFIGS = {
    "if": SpikingConfig(9),
    "leaky": SpikingConfig(7, neuron=Neuron(leak=0.5)),
    "hard": SpikingConfig(7, neuron=Neuron(leak=0.5, reset="hard")),
    "detached": SpikingConfig(8, neuron=Neuron(detach_reset=True)),
    "hard detached": SpikingConfig(8, neuron=Neuron(reset="hard", detach_reset=True)),
    "direct": SpikingConfig(8, encoder="direct"),
    "one step": SpikingConfig(1),
}

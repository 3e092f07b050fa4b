"""Users' ANNs read into graphs: the same logits, and one line for what can't be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import InputRange
from leakbench.errors import UsageError
from leakbench.foreign.anns import Normalisation, ann_of_module
from leakbench.models.storage import load_ann, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork

SHAPE = (3, 16, 16)


def lively(module: nn.Module) -> nn.Module:
    """With statistics in its batch norms as a training leaves them."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d) and layer.running_mean is not None:
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
    return module.eval()


def read(module: nn.Module, *normalised: Any, shape: tuple[int, int, int] = SHAPE, classes: int = 10) -> Any:
    return ann_of_module(lively(module), shape, classes, InputRange(-1.0, 1.0), *normalised)


class Functional(nn.Module):
    """ReLU, pooling and dropout as functions, one pooling layer used twice, a view in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = functional.dropout(x, training=self.training)
        x = functional.max_pool2d(torch.relu(self.norm(self.conv2(x))), 2)
        x = self.pool(x).relu()
        return self.fc(functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))  # type: ignore[no-any-return]


class Branched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Linear(8, 10)
        self.act, self.mean = nn.ReLU(), nn.AdaptiveAvgPool2d((4, 4))

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.act(self.one(x)), self.act(self.other(x))
        both = self.mean(torch.cat([one + other, other], dim=1))
        return self.fc(torch.flatten(functional.avg_pool2d(both, 4), 1))  # type: ignore[no-any-return]


def test_functions_and_layers_that_are_used_twice() -> None:
    assert read(Functional()).arch == (
        "graph: conv 6 k3x3 b; relu; avgpool k2x2; conv 8 k3x3 p1x1 b; relu; maxpool k2x2; avgpool k2x2; relu; mean; "
        "flatten; linear 10 b"
    )


def test_branches_and_adaptive_pooling() -> None:
    assert read(Branched()).arch == (
        "graph: conv 4 k1x1 b; relu; conv 4 k3x3 p1x1 b <0; relu; add <2 <4; cat <5 <4; avgpool k4x4; avgpool k4x4; "
        "flatten; linear 10 b"
    )


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(2048, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv(x))
        return self.fc(torch.flatten(torch.cat([x, x], 1), 1))  # type: ignore[no-any-return]


def test_maps_may_be_joined_with_themselves() -> None:
    assert read(Doubled()).arch == "graph: conv 4 k1x1 b; relu; cat <2 <2; flatten; linear 10 b"

    class Named(Doubled):
        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.conv(x))
            return self.fc(torch.flatten(torch.cat(tensors=[x, x], dim=1), 1))  # type: ignore[no-any-return]

    with pytest.raises(UsageError, match="'cat' is no layer"):
        read(Named())


@pytest.mark.slow
def test_torchvisions_resnet_spikes() -> None:
    """Batch norms are folded; what comes out is stored, and converted, without torchvision."""
    from torchvision.models import resnet18

    module = lively(resnet18(num_classes=10))
    ann = ann_of_module(module, (3, 32, 32), 10, InputRange(-1.0, 1.0), Normalisation((0.5, 0.4, 0.3), (0.2,)))
    images = torch.rand(4, 3, 32, 32)
    theirs = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    with torch.no_grad():
        torch.testing.assert_close(ann(images), module(theirs), rtol=1e-3, atol=1e-3)
    kept = load_ann(*save_network(ann), torch.device("cpu"))
    assert torch.equal(kept(images), ann(images))
    assert "affine; conv 64 k7x7 s2x2 p3x3 b; relu; maxpool k3x3 s2x2 p1x1;" in ann.arch
    assert len(SpikingNetwork.from_ann(ann, SpikingConfig(2)).neurons) == 17


def test_a_normalisation_is_of_images_whatever_their_range() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10)))
    images = torch.rand(5, *SHAPE)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        ann = ann_of_module(module, SHAPE, 10, InputRange(low, high), Normalisation((0.5,), (0.25, 0.5, 1.0)))
        theirs = (images - 0.5) / torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1)
        torch.testing.assert_close(ann(images), module(theirs).detach(), rtol=1e-4, atol=1e-4)


def after(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Flatten(), nn.LazyLinear(10))


class Scaled(nn.Sequential):
    """By a buffer of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale)  # type: ignore[no-any-return]


def scaled() -> nn.Module:
    module = Scaled(nn.Flatten(), nn.Linear(768, 10))
    module.register_buffer("scale", torch.tensor(2.0))
    return module


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(768, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1))  # type: ignore[no-any-return]


class Tupled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (lambda: after(nn.GELU()), r"the layer '1' \(GELU\) is not known: between activations, all ReLU"),
        (lambda: after(nn.ReLU6()), r"the layer '1' \(ReLU6\) is not known"),
        (lambda: after(nn.MaxPool2d(3, ceil_mode=True)), r"the layer '1' \(MaxPool2d\): pooling must be without ceil"),
        (lambda: after(nn.AdaptiveAvgPool2d(5)), r"'1' pools maps of \[14, 14\] to \[5, 5\], which does not divide"),
        (lambda: after(nn.ReLU(), nn.BatchNorm2d(4)), "the batch norm '2' can't be folded"),
        (lambda: after(nn.BatchNorm2d(4, track_running_stats=False)), "the batch norm '1' can't be folded: it needs"),
        (scaled, "'scale' is used outside of a layer"),
        (Decides, "its graph can't be read by torch.fx: TraceError: symbolically"),
        (Tupled, r"images \[3, 16, 16\] give no logits: TypeError"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 7)), r"must give logits \[100, 10\], and give \[100, 7\]"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), r"images \[3, 16, 16\] give no logits: RuntimeError"),
    ],
)
def test_what_can_not_be_read_is_one_line(module: Any, problem: str) -> None:
    network = module()
    for lazy in network.modules():
        if isinstance(lazy, nn.LazyLinear):
            network(torch.zeros(2, *SHAPE))
    with pytest.raises(UsageError, match=problem) as error:
        read(network)
    assert "\n" not in str(error.value)


def test_weights_that_are_no_numbers() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    nn.init.constant_(network[1].weight, torch.nan)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="it answers NaN or infinity"):
        read(network)


def test_numbers_for_other_channels() -> None:
    with pytest.raises(UsageError, match="--mean: 2 numbers, and the images have 3 channels"):
        read(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), Normalisation((0.1, 0.2), (1.0,)))

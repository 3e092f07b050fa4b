"""The architectures: shapes, and the paper's VGG16 counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leakbench import registry
from leakbench.contracts import InputRange
from leakbench.errors import UnknownName
from leakbench.models import model_names
from leakbench.models.storage import build_ann
from leakbench.models.vgg import COLOUR as COLOUR_BLOCKS
from leakbench.models.vgg import PAPER, SMALL
from leakbench.snn import SpikingConfig, SpikingNetwork, trace

GREY, COLOUR = InputRange(0.0, 1.0), InputRange(-1.0, 1.0)
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]


BLOCKS = {"vgg4": SMALL[:2], "vgg5": SMALL, "vgg9": COLOUR_BLOCKS, "vgg16": PAPER}
VGGS = [name for name in model_names() if name.startswith("vgg")]
RESNETS = {"resnet8": (3, 1), "resnet20": (3, 3), "resnet18": (4, 2)}
"""stages, and blocks in each"""
of_every_size = pytest.mark.parametrize("shape", SHAPES)


def untrained(name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Shapes alone: on the meta device nothing is computed."""
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda tensor, generator: tensor)  # noqa: ARG005 - called by name
    with torch.device("meta"):
        body = build_ann(name, shape, 7, GREY).body
        assert body.eval()(torch.empty(2, *shape)).shape == (2, 7)
    return body


@of_every_size
@pytest.mark.parametrize("name", VGGS)
def test_every_vgg_takes_every_image_size(
    name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    body, norm = untrained(name, shape, monkeypatch), name.endswith("bn")
    modules = list(body.children())
    assert all(module.bias is None for module in modules if isinstance(module, nn.Conv2d | nn.Linear))
    kinds = {type(module) for module in modules}
    pool = nn.MaxPool2d if name.endswith("max") else nn.AvgPool2d
    norms = {nn.BatchNorm2d} if norm else set()
    assert kinds == {nn.Conv2d, nn.ReLU, pool, nn.Flatten, nn.Linear, nn.Dropout} | norms
    assert [module.p for module in modules if isinstance(module, nn.Dropout)] == [0.5]
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [
        out for block in BLOCKS[name.removesuffix("bn").removesuffix("max")] for out in block
    ]
    assert sum(isinstance(module, nn.ReLU) for module in modules) == len(convolutions) + 1
    assert sum(isinstance(module, nn.BatchNorm2d) for module in modules) == len(convolutions) * norm
    for module in convolutions:
        assert (module.kernel_size, module.padding, module.stride) == ((3, 3), (1, 1), (1, 1))


@of_every_size
@pytest.mark.parametrize("name", RESNETS)
def test_every_resnet_takes_every_image_size(
    name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    body, (stages, depth) = untrained(name, shape, monkeypatch), RESNETS[name]
    convolutions = [module for module in body.modules() if isinstance(module, nn.Conv2d)]
    main = [module for module in convolutions if module.kernel_size == (3, 3)]
    assert len(main) == 1 + 2 * depth * stages
    assert len(convolutions) - len(main) == stages - 1  # shortcuts where the width changes
    assert sum(isinstance(module, nn.BatchNorm2d) for module in body.modules()) == len(convolutions)
    assert sum(isinstance(module, nn.ReLU) for module in body.modules()) == len(main)


def test_resnet20_has_the_parameters_that_he_2016_prints() -> None:
    """Table 6: 0.27 M; theirs has no weights in its shortcuts, ours two 1x1 convolutions with their batch norms."""
    body = build_ann("resnet20", (3, 32, 32), 10, COLOUR).body
    shortcuts = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert f"{(sum(p.numel() for p in body.parameters()) - shortcuts) / 1e6:.2f}" == "0.27"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg4bn", "vgg5max"])
def test_residual_and_normed_networks_spike(name: str) -> None:
    """Through the engine, whose units are the ANN's: on a constant current the logits approach the ANN's."""
    ann = build_ann(name, (1, 8, 8), 10, GREY, torch.Generator().manual_seed(0)).eval()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    highest: list[float] = []
    handles = [
        module.register_forward_hook(lambda _module, _args, out: highest.append(float(out.max())))
        for module in ann.modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        wanted = ann(images)
        for handle in handles:
            handle.remove()
        errors = []
        for steps in (32, 512):
            network = SpikingNetwork.from_ann(ann, SpikingConfig(steps, "direct"))
            for layer, theta in zip(network.neurons, highest, strict=True):
                layer.set_threshold(theta)
            errors.append(float((network(images, seed=0) - wanted).abs().max() / wanted.abs().max()))
    assert errors[1] < 0.4 * errors[0]


@pytest.mark.slow
def test_the_papers_vgg16_counted_by_hand() -> None:
    body = build_ann("vgg16", (3, 32, 32), 10, COLOUR).body
    # (side of the map, channels in, channels out) of the 13 convolutions
    convolutions = [
        (32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256), (8, 256, 256), (8, 256, 256),
        (4, 256, 512), (4, 512, 512), (4, 512, 512), (2, 512, 512), (2, 512, 512), (2, 512, 512),
    ]  # fmt: skip
    linear = [(512, 4096), (4096, 10)]
    parameters = sum(9 * a * b for _, a, b in convolutions) + sum(a * b for a, b in linear)
    assert sum(p.numel() for p in body.parameters()) == parameters == 16_848_576
    macs = sum(9 * a * b * side**2 for side, a, b in convolutions) + sum(a * b for a, b in linear)
    topology = trace(body, (3, 32, 32))
    assert sum(layer.macs for layer in topology.weights) == macs
    assert f"{macs / 1e6:.2f}" == "315.33"
    # the 280 586 neurons that Table 5 is inverted with are those behind each weight layer, the ten outputs among
    # them; neither input pixels nor pooled maps count
    assert sum(layer.output_neurons for layer in topology.weights) == 280_586
    assert sum(topology.neurons.values()) == 280_586 - 10
    assert list(topology.neurons.values()) == [side**2 * b for side, _, b in convolutions] + [4096]


def test_the_papers_classifier_for_tinyimagenet() -> None:
    with torch.device("meta"):
        body = build_ann("vgg16", (3, 64, 64), 200, COLOUR).body
    linear = [m for m in body.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(2048, 4096), (4096, 200)]


def test_weights_are_kaiming_normal_and_come_from_the_generator() -> None:
    def built(seed: int) -> list[torch.Tensor]:
        return list(build_ann("vgg5", (1, 28, 28), 10, GREY, torch.Generator().manual_seed(seed)).parameters())

    first, again, other = built(0), built(0), built(1)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        fan_in = a[0].numel()
        # He et al. 2015: variance 2 / fan-in; the deviation of n normal draws is off by 5 / sqrt(2n) at most
        assert abs(a.std().item() / (2 / fan_in) ** 0.5 - 1) < 5 / (2 * a.numel()) ** 0.5
        assert a.mean().abs() < 5 * (2 / fan_in) ** 0.5 / a.numel() ** 0.5


def test_an_ann_maps_images_to_its_input_range(generator: torch.Generator) -> None:
    ann = build_ann("vgg4", (3, 8, 8), 5, COLOUR, generator).eval()
    images = torch.rand(2, 3, 8, 8, generator=generator)
    assert torch.equal(ann(images), ann.body(images * 2 - 1))
    assert (ann.arch, ann.image_shape, ann.classes) == ("vgg4", (3, 8, 8), 5)


def test_names() -> None:
    assert model_names()[:4] == ("vgg4", "vgg5", "vgg9", "vgg16")
    assert {*VGGS, *RESNETS} == set(registry.built_in("model"))
    with pytest.raises(UnknownName, match=r"unknown model 'vgg61': did you mean 'vgg16'\?"):
        build_ann("vgg61", (1, 8, 8), 10, GREY)

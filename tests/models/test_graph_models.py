"""Networks that a text describes: what they compute, and texts that are refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from leakbench.contracts import InputRange
from leakbench.errors import UsageError
from leakbench.models import Architecture, model_label, pinned_model
from leakbench.models.graph import Graph, of_text
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds

RESIDUAL = (
    "graph: conv 8 k3x3 p1x1 b; relu; conv 8 k3x3 p1x1; relu; add <4 <2; avgpool k2x2; conv 16 k3x3 s2x2 p1x1; relu; "
    "mean; flatten; linear 3 b"
)
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
RANGE = InputRange(0.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_graph_computes_what_it_says() -> None:
    ann = build_ann(RESIDUAL, (1, 8, 8), 3, RANGE, seeded())
    weights = {key.removeprefix("body."): value for key, value in ann.state_dict().items()}
    assert sorted(weights) == ["n1.bias", "n1.weight", "n11.bias", "n11.weight", "n3.weight", "n7.weight"]
    first = functional.conv2d(IMAGES, weights["n1.weight"], weights["n1.bias"], padding=1).relu()
    second = functional.conv2d(first, weights["n3.weight"], padding=1).relu()
    pooled = functional.avg_pool2d(first + second, 2)
    third = functional.conv2d(pooled, weights["n7.weight"], stride=2, padding=1).relu().mean((2, 3))
    assert torch.allclose(ann(IMAGES), third @ weights["n11.weight"].T + weights["n11.bias"], atol=1e-5)


def test_every_operation_has_the_shape_that_it_is_said_to_have() -> None:
    text = (
        "graph: affine; conv 4 k3x1 s1x2 p2x0 d2x1 g2 b; relu; sumpool k2x2 s1x1; maxpool k2x2 s1x1 p1x1; "
        "conv 6 k1x1; relu; spikemax k2x1; cat <8 <8; mean; flatten; relu; linear 3"
    )
    body = of_text(text)((2, 9, 9), 3, seeded())
    assert body(torch.rand(2, 2, 9, 9)).shape == (2, 3)
    assert str(Graph.parse(text)) == text


def test_the_built_in_vgg_is_the_same_network_as_a_graph() -> None:
    vgg = build_ann("vgg4", (1, 8, 8), 3, RANGE, seeded()).eval()
    text = (
        "graph: conv 32 k3x3 p1x1; relu; avgpool k2x2; conv 64 k3x3 p1x1; relu; avgpool k2x2; flatten; linear 128; "
        "relu; linear 3"
    )
    same = build_ann(text, (1, 8, 8), 3, RANGE, seeded())
    for one, other in zip(vgg.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.allclose(vgg(IMAGES), same(IMAGES), atol=1e-6)
    made = [SpikingNetwork.from_ann(ann, SpikingConfig(16)) for ann in (vgg, same)]
    for network in made:
        balance_thresholds(network, IMAGES, seed=0)
    assert torch.allclose(made[0](IMAGES, seed=1), made[1](IMAGES, seed=1), atol=1e-5)


def test_the_fast_path_is_the_plain_one() -> None:
    ann = build_ann(
        "graph: affine; conv 8 k3x3 p1x1; relu; conv 8 k3x3 p1x1; relu; add <5 <3; sumpool k2x2; conv 8 k3x3; relu; "
        "spikemax k2x2; conv 8 k1x1; relu; affine; flatten; linear 3",
        (1, 8, 8), 3, RANGE, seeded(),
    )  # fmt: skip
    ann.body.n1.shift.fill_(0.1)  # type: ignore[union-attr, operator]
    fast = SpikingNetwork.from_ann(ann, SpikingConfig(16))
    balance_thresholds(fast, IMAGES, seed=0)
    plain = copy.deepcopy(fast)
    plain.fast = False
    assert fast._events(torch.device("cpu"), torch.float32) is not None
    assert torch.allclose(fast(IMAGES, seed=2), plain(IMAGES, seed=2), atol=1e-5)


def test_a_maximum_behind_the_last_neurons_is_taken_at_each_step() -> None:
    """It runs as it stands: no kernel knows it."""
    graph = build_ann("graph: conv 4 k3x3; relu; spikemax k2x2; flatten; linear 3", (1, 8, 8), 3, RANGE, seeded())
    network = SpikingNetwork.from_ann(graph, SpikingConfig(4))
    assert network._events(torch.device("cpu"), torch.float32) is None


def test_spikes_of_a_step_are_pooled_as_they_are() -> None:
    ann = build_ann("graph: spikemax k2x2; conv 4 k3x3; relu; flatten; linear 3", (1, 8, 8), 3, RANGE, seeded())
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4))
    network.neurons[0].set_threshold(1.0)
    seen: list[torch.Tensor] = []
    network.body.n1.register_forward_hook(lambda _m, args, out: seen.extend((args[0], out)))  # type: ignore[union-attr, operator, arg-type]
    network.fast = False
    network(IMAGES, seed=0)
    assert torch.equal(seen[1], functional.max_pool2d(seen[0], 2)) and {0.0, 1.0} == set(seen[1].unique().tolist())


def test_it_is_kept_and_loaded() -> None:
    ann = build_ann(RESIDUAL, (1, 8, 8), 3, RANGE, seeded())
    network = SpikingNetwork.from_ann(ann, SpikingConfig(8))
    for neurons in network.neurons:
        neurons.set_threshold(0.5)
    for made in (ann, network):
        tensors, record = save_network(made)
        again = load_network(tensors, record, torch.device("cpu"))
        assert torch.equal(again(IMAGES), ann(IMAGES)) if made is ann else again.arch == RESIDUAL
    assert save_network(network.reconvert())[1]["arch"] == RESIDUAL


def test_people_read_a_name() -> None:
    label = model_label(RESIDUAL)
    assert label.startswith("graph-") and len(label) == 14 and label != model_label(RESIDUAL.replace("8", "9"))
    assert pinned_model(RESIDUAL) == RESIDUAL
    assert Architecture.parse(f"{RESIDUAL}+bias") == Architecture(RESIDUAL, "", ("bias",))
    assert Architecture.parse(f"{RESIDUAL}+bias").label == f"{label}+bias"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("graph:", "says nothing"),
        ("graph: ", "says nothing"),
        ("graph: conv 4 k3x3;; relu", "node 2: it says nothing"),
        ("graph: eval", "'eval' is none of conv, linear"),
        ("graph: conv", "followed by its number of outputs"),
        ("graph: conv x k3x3", "followed by its number of outputs"),
        ("graph: conv 4", "needs a kernel"),
        ("graph: conv 0 k3x3", "a size of 0"),
        ("graph: conv 4 k0x3", "a size of 0"),
        ("graph: relu k3x3", "relu has no 'k3x3'"),
        ("graph: relu <1", "relu has no '<1'"),
        ("graph: relu; relu <2", "relu has no '<2'"),
        ("graph: relu <0 <0", "takes one input"),
        ("graph: relu; add", "takes several inputs"),
        ("graph: relu; add <1", "takes several inputs"),
        ("graph: conv 4 k3x3 s1x1", "write 'graph: conv 4 k3x3' instead"),
        ("graph:relu", "write 'graph: relu' instead"),
        ("graph: avgpool k2x2 d2x2", "has no 'd2x2'"),
        ("graph: " + "relu; " * 2000 + "relu", "2001 nodes is too large"),
        ("graph: conv 99999999 k3x3", "followed by its number of outputs"),
    ],
)
def test_what_is_no_graph_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        Graph.parse(text)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("graph: conv 4 k9x9; relu; flatten; linear 3", "node 1: conv takes larger maps"),
        ("graph: linear 3", "linear takes one axis"),
        ("graph: flatten; conv 4 k1x1", "conv takes maps"),
        ("graph: conv 4 k1x1 g3; flatten; linear 3", "that 3 groups divide"),
        ("graph: conv 4 k3x3; relu; add <2 <0; flatten; linear 3", "add takes inputs of one shape, and gets [4, 6, 6]"),
        ("graph: conv 4 k3x3; cat <1 <0; flatten; linear 3", "differ in channels alone"),
        ("graph: maxpool k2x2 p2x2; flatten; linear 3", "half its kernel"),
        ("graph: flatten; linear 4", "puts out [4] for images [1, 8, 8], not [3]"),
        ("graph: flatten; linear 9999999; relu; linear 3", "weights are too many"),
        ("graph: conv 9999999 k1x1; flatten; linear 3", "it puts out 639999936 numbers"),
        (f"graph: conv 4096 k1x1;{' relu;' * 1100} mean; flatten; linear 3", "outputs are too many"),
    ],
)
def test_what_does_not_fit_images_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_ann(text, (1, 8, 8), 3, RANGE)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_modules_beside_the_graph_are_those_of_torch() -> None:
    body = of_text(RESIDUAL)((1, 8, 8), 3, seeded())
    assert all(type(part).__module__.startswith("torch.nn") for part in body.children())
    assert isinstance(body, nn.Module)


@pytest.mark.long
@pytest.mark.slow
def test_a_run_takes_a_graph_as_its_model(tmp_path: Path) -> None:
    import leakbench

    text = "graph: conv 8 k3x3 p1x1; relu; avgpool k2x2; conv 16 k3x3 p1x1; relu; avgpool k2x2; flatten; linear 10"
    result = leakbench.run(
        "han2020", "none", model=text, preset="quick", out=tmp_path / "run", cache=tmp_path / "cache", quiet=True,
        controls=False,
    )  # fmt: skip
    assert not result.failed
    assert {cell.model for cell in result.record.cells} == {model_label(text)}

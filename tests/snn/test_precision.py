"""Convolutions in fewer bits: what changes, what doesn't, and that it is written down."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from test_events import gradients, images, network_of
from torch import nn

from leakbench.contracts.precision import arithmetic
from leakbench.errors import UsageError
from leakbench.snn import SpikingConfig, SpikingNetwork


def in_bfloat16(network: SpikingNetwork) -> SpikingNetwork:
    return network.configured(dataclasses.replace(network.config, precision="bfloat16"))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("body", ["vgg", "strides", "residual"])
def test_bfloat16_gradients_point_the_same_way(body: str, fast: bool) -> None:
    """bfloat16 keeps 8 bits: an error of 2^-9 a number, some per cent after five layers and eight steps."""
    exact = network_of(body, SpikingConfig(8)).requires_grad_(True)
    rounded = in_bfloat16(exact).requires_grad_(True)
    exact.fast = rounded.fast = fast
    expected, approximate = gradients(exact, images()), gradients(rounded, images())
    for name, one in expected.items():
        other = approximate[name]
        assert other.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99, name
    assert not torch.equal(expected["images"], approximate["images"]), "nothing was rounded"


def test_listed_spikes_do_not_change_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("vgg", SpikingConfig(8))
    monkeypatch.setattr("leakbench.snn.engine.events.DENSEST", 1000.0)
    exact, rounded = network.simulate(images(), seed=3), in_bfloat16(network).simulate(images(), seed=3)
    assert exact.spikes == rounded.spikes
    assert torch.equal(exact.logits, rounded.logits)


def test_logits_are_float32_on_the_plain_path() -> None:
    network = in_bfloat16(network_of("vgg", SpikingConfig(8)))
    network.fast = False
    assert network(images(), seed=3).dtype == torch.float32


def test_tf32_is_float32_on_a_cpu() -> None:
    network = network_of("vgg", SpikingConfig(4))
    other = network.configured(dataclasses.replace(network.config, precision="tf32"))
    assert torch.equal(network(images(), seed=3), other(images(), seed=3))


def test_a_precision_is_kept_and_checked() -> None:
    config = SpikingConfig(4, precision="bfloat16")
    assert SpikingConfig.from_json(config.to_json()) == config
    old = {name: value for name, value in config.to_json().items() if name != "precision"}
    assert SpikingConfig.from_json(old).precision == "float32"
    with pytest.raises(UsageError, match="unknown precision 'half': one of float32, tf32, bfloat16"):
        SpikingConfig(4, precision="half")  # type: ignore[arg-type]


def test_what_is_recomputed_for_gradients_has_the_precision_of_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a spike may fall otherwise, and the gradient is of another simulation."""
    asked: list[str] = []
    depth = 0

    @contextmanager
    def watched(precision: str, _device: torch.device) -> Iterator[None]:
        nonlocal depth
        assert precision == "tf32"
        depth += 1
        yield
        depth -= 1

    monkeypatch.setattr("leakbench.snn.network.arithmetic", watched)
    monkeypatch.setattr(SpikingNetwork, "chunk_steps", lambda *_: 2)
    network = network_of("vgg", SpikingConfig(8, precision="tf32")).requires_grad_(True)
    network.fast = False
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda *_: asked.append("inside" if depth else "outside"))
    answer = network(images(), seed=3)
    before = len(asked)
    answer.sum().backward()
    assert len(asked) > before > 0 and set(asked) == {"inside"}


@pytest.mark.slow
def test_a_process_of_ours_takes_no_gradient_in_tf32_unasked() -> None:
    code = "import torch; from leakbench.runtime.process import tune_process; tune_process(); "
    code += "print(torch.backends.cudnn.allow_tf32)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="tf32 is CUDA's: no GPU at hand")
def test_tf32_only_where_it_was_asked_for() -> None:
    device = torch.device("cuda")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for precision, allowed in (("tf32", True), ("float32", False)):
        with arithmetic(precision, device):  # type: ignore[arg-type]
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before

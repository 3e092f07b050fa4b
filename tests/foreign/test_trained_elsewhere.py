"""Networks trained in SpikingJelly, snnTorch, Norse and sinabs, read by their own NIR files and as their own modules.

Each is trained for seconds on the digits, by its framework's neurons and surrogates. Wanted: logits of both readings
equal to the framework's within 1e-4 on 100 test images with the same input spikes, and the same classes. Frameworks
that are not installed are skipped; `make test-frameworks` installs them all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakbench.data import load_dataset
from leakbench.foreign.confined import read_confined
from leakbench.foreign.modules import network_of_module
from leakbench.foreign.nir import network_of_tree
from leakbench.foreign.settings import NetworkSettings
from leakbench.snn import SpikingNetwork

STEPS, TRAINING_STEPS, BATCH = 12, 150, 64

Run = Callable[[nn.Module, Tensor], Tensor]
"""logits [B, 10], summed over the steps, of input [T, B, 1, 8, 8]"""


@dataclass(frozen=True)
class Framework:
    """How a network is made, run and written."""

    make: Callable[[], nn.Module]
    run: Run
    write: Callable[[nn.Module, Path], None]
    settings: dict[str, Any]


def _layers(first: nn.Module, last: nn.Module, pool: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), first, pool or nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10), last
    )


def _spikingjelly() -> Framework:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    functions = pytest.importorskip("spikingjelly.activation_based.functional")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    pytest.importorskip("nir")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")

    def make() -> nn.Module:
        return nn.Sequential(
            layer.Conv2d(1, 16, 3, padding=1), neuron.IFNode(), layer.AvgPool2d(2), layer.Flatten(),
            layer.Linear(256, 10), neuron.IFNode(),
        )  # fmt: skip

    def run(module: nn.Module, encoded: Tensor) -> Tensor:
        functions.reset_net(module)
        return torch.stack([module(x) for x in encoded.unbind(0)]).sum(0)

    def write(module: nn.Module, path: Path) -> None:
        functions.reset_net(module)
        exchange.export_to_nir(module, torch.zeros(1, 1, 8, 8), str(path))

    return Framework(make, run, write, {"framework": "spikingjelly"})


def _snntorch() -> Framework:
    snntorch = pytest.importorskip("snntorch")
    nir, export = pytest.importorskip("nir"), pytest.importorskip("snntorch.export_nir")

    def leaky(beta: float, *shape: int) -> nn.Module:
        full = {"beta": torch.full(shape, beta), "threshold": torch.ones(shape)}  # exported as they are
        return snntorch.Leaky(**full, init_hidden=True)  # type: ignore[no-any-return]

    def run(module: nn.Module, encoded: Tensor) -> Tensor:
        for part in module.modules():
            if hasattr(part, "mem"):
                part.mem = torch.zeros(0, dtype=encoded.dtype)
        return torch.stack([module(x) for x in encoded.unbind(0)]).sum(0)

    def write(module: nn.Module, path: Path) -> None:
        run(module, torch.zeros(1, 1, 1, 8, 8))
        nir.write(path, export.export_to_nir(module, torch.zeros(1, 1, 8, 8), ignore_dims=[0]))

    said = {"framework": "snntorch", "neurons": {"reset": "subtract", "reset_delay": True}}
    return Framework(lambda: _layers(leaky(0.75, 16, 8, 8), leaky(0.5, 10)), run, write, said)


def _norse() -> Framework:
    norse = pytest.importorskip("norse.torch")
    nir = pytest.importorskip("nir")

    def box() -> nn.Module:
        return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0)))  # type: ignore[no-any-return]

    def make() -> nn.Module:
        layers = nn.Flatten(), nn.Linear(64, 64), box(), nn.Linear(64, 10), box()
        return norse.SequentialState(*layers)  # type: ignore[no-any-return]

    def run(module: nn.Module, encoded: Tensor) -> Tensor:
        state, total = None, torch.zeros((), dtype=encoded.dtype)
        for x in encoded.unbind(0):
            out, state = module(x, state)
            total = total + out
        return total

    def write(module: nn.Module, path: Path) -> None:
        """Norse's own writer puts out no Flatten, and 0-d constants that `nir.write` refuses: the same nodes by hand,
        with time constants as Norse writes them (tau times dt)."""
        linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
        nodes: dict[str, Any] = {"input": nir.Input({"input": (1, 8, 8)}), "flat": nir.Flatten((1, 8, 8), 0, -1)}
        for number, part in enumerate(linear):
            assert part.bias is not None
            weight, bias = part.weight.detach().numpy(), part.bias.detach().numpy()
            full = torch.ones(len(bias)).numpy()
            nodes[f"fc{number}"] = nir.Affine(weight, bias)
            constants = {"r": full, "v_leak": 0 * full, "v_threshold": full, "v_reset": 0 * full}
            nodes[f"lif{number}"] = nir.LIF(tau=full * (1e-3 / 500), **constants)
        nodes["output"] = nir.Output({"output": (10,)})
        nir.write(path, nir.NIRGraph(nodes, list(zip(nodes, [*nodes][1:], strict=False))))

    return Framework(make, run, write, {"framework": "norse"})


def _sinabs() -> Framework:
    layers = pytest.importorskip("sinabs.layers")
    nir, writer = pytest.importorskip("nir"), pytest.importorskip("sinabs.nir")

    def iaf() -> nn.Module:
        return layers.IAFSqueeze(batch_size=1, min_v_mem=-1.0)  # type: ignore[no-any-return]

    def run(module: nn.Module, encoded: Tensor) -> Tensor:
        steps, batch = encoded.shape[:2]
        for part in module.modules():
            if hasattr(part, "reset_states"):
                part.batch_size = batch
                part.reset_states()
        with torch.autograd.set_grad_enabled(torch.is_grad_enabled()):
            x = encoded.transpose(0, 1).flatten(0, 1)
            for part in module.children():
                x = part(x).to(encoded.dtype)
        return x.view(batch, steps, -1).sum(1)

    def write(module: nn.Module, path: Path) -> None:
        for part in module.modules():
            if hasattr(part, "reset_states"):
                part.batch_size = 1
        graph = writer.to_nir(module, torch.zeros(1, 1, 8, 8))
        graph.infer_types()
        nir.write(path, graph)

    said = {"framework": "sinabs", "neurons": {"fires": "many", "floor": -1.0}}
    return Framework(lambda: _layers(iaf(), iaf(), layers.SumPool2d(2)), run, write, said)


FRAMEWORKS = {"spikingjelly": _spikingjelly, "snntorch": _snntorch, "norse": _norse, "sinabs": _sinabs}


def _encoded(images: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(STEPS, *images.shape, generator=generator) < images).float()


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_trained_network_is_what_its_framework_says(name: str, tmp_path: Path) -> None:
    framework = FRAMEWORKS[name]()
    torch.manual_seed(0)
    module, data = framework.make(), load_dataset("digits")
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    images, labels = data.train.images.float() / 255, data.train.labels
    generator = torch.Generator().manual_seed(0)
    for step in range(TRAINING_STEPS):
        index = torch.randint(len(images), (BATCH,), generator=generator)
        logits = framework.run(module, _encoded(images[index], step))
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels[index]).backward()
        optimizer.step()
    module.eval().requires_grad_(False)
    test, truth = data.test.images[:100].float() / 255, data.test.labels[:100]
    encoded = _encoded(test, 10**6)
    theirs = framework.run(module, encoded)
    assert float((theirs.argmax(1) == truth).float().mean()) > 0.7

    said = NetworkSettings.model_validate({"format": 1, "timesteps": STEPS, **framework.settings})
    plain = NetworkSettings.model_validate({"format": 1, "timesteps": STEPS})
    by_module = network_of_module(copy.deepcopy(module), (1, 8, 8), 10, plain)
    framework.write(module, tmp_path / "net.nir")
    by_file = network_of_tree(read_confined(tmp_path / "net.nir", "--snn"), said)
    for network in (by_module, by_file):
        assert isinstance(network, SpikingNetwork)
        ours = network.respond(encoded).logits
        assert float((ours - theirs).abs().max()) <= 1e-4
        assert torch.equal(ours.argmax(1), theirs.argmax(1))

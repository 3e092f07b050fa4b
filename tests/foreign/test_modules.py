"""Modules of SpikingJelly, snnTorch, Norse and sinabs: each layer that is read computes what its framework does.

The comparison is part of reading a module: what is read here gave the framework's own logits on 100 images. Each
framework is wanted by its own tests alone, which are skipped without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from leakbench.errors import UsageError
from leakbench.foreign import modules
from leakbench.foreign.modules import network_of_module
from leakbench.foreign.settings import NetworkSettings
from leakbench.snn import SpikingNetwork


def read(module: nn.Module, **settings: Any) -> SpikingNetwork:
    said = NetworkSettings.model_validate({"format": 1, "timesteps": 12, **settings})
    return network_of_module(module, (1, 8, 8), 10, said)


def lively(module: nn.Module) -> nn.Module:
    """With larger weights, so that all layers spike, from one seed."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            layer.weight.data *= 4
    return module


def around(*neurons: nn.Module, flat: bool = False) -> nn.Module:
    """conv, neurons, pool, fc, neurons; or a network of linear layers alone."""
    first, second = neurons
    if flat:
        return lively(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), first, nn.Linear(32, 10), second))
    pool = nn.Sequential(nn.AvgPool2d(2), nn.Dropout(), nn.Flatten())
    return lively(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), first, pool, nn.Linear(128, 10), second))


Pair = Callable[[Any], tuple[nn.Module, nn.Module]]

SPIKINGJELLY: dict[str, Pair] = {
    "IF, soft": lambda n: (n.IFNode(v_reset=None), n.IFNode(v_threshold=0.7, v_reset=None)),
    "IF, to a value": lambda n: (n.IFNode(v_reset=-0.25), n.IFNode()),
    "LIF": lambda n: (n.LIFNode(2.0, True, 0.7, -0.2), n.LIFNode(3.0, False, 0.9, 0.0)),
    "LIF, soft": lambda n: (n.LIFNode(4.0, True, v_reset=None), n.LIFNode(2.0, False, v_reset=None)),
    "parametric": lambda n: (n.ParametricLIFNode(2.0), n.ParametricLIFNode(3.0, v_reset=None)),
}
SNNTORCH: dict[str, Pair] = {
    "subtract": lambda n: (n.Leaky(beta=0.75, init_hidden=True), n.Leaky(beta=1.0, init_hidden=True, output=True)),
    "zero": lambda n: (
        n.Leaky(beta=0.75, init_hidden=True, reset_mechanism="zero"),
        n.Leaky(beta=0.5, init_hidden=True, reset_mechanism="zero", reset_delay=False),
    ),
    "a beta each": lambda n: (
        n.Leaky(beta=torch.linspace(0.5, 1, 8).view(8, 1, 1), init_hidden=True),
        n.Leaky(beta=torch.linspace(0.5, 1, 10), threshold=0.5, init_hidden=True),
    ),
    "synaptic": lambda n: (
        n.Synaptic(alpha=0.5, beta=0.75, init_hidden=True),
        n.Synaptic(alpha=0.25, beta=0.5, init_hidden=True, reset_mechanism="zero", reset_delay=False),
    ),
    "states outside": lambda n: (n.Leaky(beta=0.75), n.Synaptic(alpha=0.5, beta=0.5)),
}
NORSE: dict[str, Pair] = {
    "IAF": lambda n: (n.IAFCell(), n.IAFCell(n.IAFParameters(v_th=torch.tensor(0.5), v_reset=torch.tensor(-0.25)))),
    "box": lambda n: (
        n.LIFBoxCell(n.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0))),
        n.LIFBoxCell(
            n.LIFBoxParameters(tau_mem_inv=torch.tensor(250.0), v_leak=torch.tensor(0.25), v_reset=torch.tensor(-0.25))
        ),
    ),
    "LIF": lambda n: (n.LIFCell(n.LIFParameters(tau_mem_inv=torch.tensor(500.0))), n.LIFCell()),
}
SINABS: dict[str, Pair] = {
    "IAF": lambda n: (n.IAFSqueeze(batch_size=1, min_v_mem=-1.0), n.IAFSqueeze(batch_size=1)),
    "LIF": lambda n: (n.LIF(tau_mem=10.0, min_v_mem=-0.5), n.LIF(tau_mem=20.0, norm_input=False)),
    "synapse": lambda n: (n.LIF(tau_mem=10.0, tau_syn=5.0, norm_input=False), n.IAF(tau_syn=2.0)),
}


def check(network: SpikingNetwork) -> None:
    """It spikes everywhere, so that the comparison said something."""
    simulation = network.simulate(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), seed=0)
    assert min(simulation.spikes.values()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", SPIKINGJELLY)
def test_spikingjelly(name: str) -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    check(read(around(*SPIKINGJELLY[name](neuron))))


@pytest.mark.slow
@pytest.mark.parametrize("name", SNNTORCH)
def test_snntorch(name: str) -> None:
    check(read(around(*SNNTORCH[name](pytest.importorskip("snntorch")))))


@pytest.mark.slow
@pytest.mark.parametrize("name", NORSE)
def test_norse(name: str) -> None:
    norse = pytest.importorskip("norse.torch")
    check(read(around(*NORSE[name](norse))))
    first, second = NORSE[name](norse)
    chain = norse.SequentialState(nn.Flatten(), nn.Linear(64, 32), first, nn.Linear(32, 10), second)
    check(read(lively(chain)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SINABS)
def test_sinabs(name: str) -> None:
    layers = pytest.importorskip("sinabs.layers")
    check(read(around(*SINABS[name](layers), flat=True)))
    if name == "IAF":
        pooled = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), layers.IAFSqueeze(batch_size=1), layers.SumPool2d(2), nn.Flatten(),
            nn.Linear(128, 10),
        )  # fmt: skip
        assert "sumpool k2x2" in read(lively(pooled)).arch


@pytest.mark.slow
def test_a_single_spike_and_a_reset_to_zero_of_sinabs() -> None:
    layers = pytest.importorskip("sinabs.layers")
    activation = pytest.importorskip("sinabs.activation")
    one = layers.IAF(spike_fn=activation.SingleSpike)
    check(read(around(one, layers.IAF(reset_fn=activation.MembraneReset()), flat=True)))


@pytest.fixture
def neuron() -> Any:
    return pytest.importorskip("spikingjelly.activation_based.neuron")


class Residual(nn.Module):
    """A sum, a concatenation and a flattening between layers."""

    def __init__(self, neuron: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.first, self.second, self.last = (neuron.IFNode(v_reset=None) for _ in range(3))
        self.pool, self.out = nn.MaxPool2d(2), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.a(x))
        y = self.second(self.b(x)) + x
        y = torch.cat([y, x], 1)
        return self.last(self.out(self.pool(y).flatten(1)))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_graph_of_its_own_is_read(neuron: Any) -> None:
    network = read(lively(Residual(neuron)), readout={"over": "mean"})
    assert network.arch == (
        "graph: conv 8 k3x3 p1x1 b; relu; conv 8 k3x3 p1x1 b; relu; add <4 <2; cat <5 <2; spikemax k2x2; flatten; "
        "linear 10 b; relu"
    )
    check(network)


@pytest.mark.slow
def test_a_batch_norm_and_images_that_are_normalised(neuron: Any) -> None:
    norm = nn.BatchNorm2d(8)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(torch.linspace(-1, 1, 8))
    norm.running_var.copy_(torch.linspace(0.5, 2, 8))
    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), norm, neuron.IFNode(), nn.Flatten(), nn.Linear(512, 10)
    )
    network = read(lively(body), input={"encoder": "direct", "mean": [0.3], "std": [0.5]})
    assert network.arch == "graph: affine; conv 8 k3x3 p1x1; affine; relu; flatten; linear 10 b"
    check(network)


@pytest.mark.slow
def test_a_membrane_that_is_never_reset_is_read_out() -> None:
    snntorch = pytest.importorskip("snntorch")
    first, last = snntorch.Leaky(beta=0.75, init_hidden=True), snntorch.Leaky(beta=0.5, reset_mechanism="none")
    for over in ("sum", "mean", "last"):
        network = read(around(first, last), readout={"over": over})
        assert network.arch.endswith("linear 10 b") and network.config.readout.leak == 0.5


def test_what_is_not_known_is_named(neuron: Any) -> None:
    class Own(neuron.IFNode):  # type: ignore[misc]
        """Another neuron, whatever it derives from."""

    for module, problem in (
        (around(neuron.IFNode(), Own()), "the graph of Own can't be read"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Sigmoid(), neuron.IFNode()), r"\(Sigmoid\) is not known"),
        (nn.Sequential(nn.Conv2d(1, 8, 3, padding="same"), neuron.IFNode()), "its padding must be zeros, by a number"),
        (nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), neuron.IFNode()), "without ceil_mode"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9), neuron.IFNode()), r"puts out \[9\] .* not \[10\]"),
        (nn.Sequential(nn.Linear(64, 10), neuron.IFNode()), "put 'flatten' before it"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "nothing in it can spike"),
    ):
        with pytest.raises(Exception, match=problem) as caught:
            read(module)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="leave neurons and layers out of the settings"):
        read(around(neuron.IFNode(), neuron.IFNode()), neurons={"reset": "value"})


def test_a_loop_over_time_is_no_step(neuron: Any) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.spike = nn.Linear(64, 10), neuron.IFNode()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = self.spike(self.fc(x.flatten(1)))
            for _ in range(3):
                total = total + self.spike(self.fc(x.flatten(1)))
            return total  # type: ignore[no-any-return]

    with pytest.raises(UsageError, match="'spike' are used twice: forward must be one step"):
        read(Loop())


@pytest.mark.slow
def test_a_module_that_is_read_wrongly_is_refused(neuron: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that does more than its class says: the comparison sees it."""
    module = around(neuron.IFNode(), neuron.IFNode())
    module[1].register_forward_hook(lambda _m, _a, out: out * (torch.rand(()) < 2) * 0.5)  # type: ignore[index]
    monkeypatch.setattr(modules, "PROBES", 10)
    with pytest.raises(UsageError, match=r"its logits differ from its own by .* on 10 of 10 images"):
        read(module)


@pytest.mark.slow
def test_a_chip_that_shifts_is_said_in_the_settings() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")

    def module() -> nn.Module:
        return around(neuron.LIFNode(4.0, False, v_reset=None), neuron.IFNode(v_reset=None))

    made = read(module(), layers={"1": {"leak_shift": 2}})
    first, second = made.neurons
    assert (int(first.shift), float(first.leak), second.shift) == (2, 0.75, None)  # type: ignore[arg-type]
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(made(images, seed=0), read(module())(images, seed=0))
    for settings, problem in (
        ({"neurons": {"leak_shift": 2}}, r"'4': leak_shift 2 leaves 0.75 .* the network's own neurons leave 1$"),
        ({"layers": {"1": {"leak_shift": 3}}}, r"'1': leak_shift 3 leaves 0.875 .* leave 0.75$"),
        ({"layers": {"0": {"leak_shift": 2}}}, "of neurons that are not there: '0'"),
        ({"layers": {"1": {"leak_shift": 2, "fires": "at"}}}, "but for leak_shift"),
    ):
        with pytest.raises(UsageError, match=problem):
            read(module(), **settings)


@pytest.mark.slow
def test_a_delayed_reset_does_not_go_with_a_shift() -> None:
    snntorch = pytest.importorskip("snntorch")
    module = around(*SNNTORCH["subtract"](snntorch))
    with pytest.raises(UsageError, match="takes the threshold away at once: no reset_delay"):
        read(module, layers={"1": {"leak_shift": 2}})


class Reused(nn.Module):
    """A pooling that is called twice, whose first output is used again behind the second."""

    def __init__(self, neuron: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second = (neuron.IFNode() for _ in range(2))
        self.pool, self.out = nn.AvgPool2d(3, 1, 1), nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.first(self.a(x)))
        y = self.pool(self.second(self.b(x)))
        return self.out(torch.cat([x, y], 1).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_layers_that_remember_nothing_may_be_used_again(neuron: Any) -> None:
    pool, conv = nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 4, 3, padding=1)
    first, second, third = (neuron.IFNode() for _ in range(3))
    layers = (
        nn.Conv2d(1, 4, 3, padding=1),
        first,
        pool,
        conv,
        second,
        pool,
        conv,
        third,
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    network = read(lively(nn.Sequential(*layers)))
    assert network.arch.count("avgpool") == 2 and network.arch.count("conv") == 3
    check(network)
    check(read(lively(Reused(neuron))))
    with pytest.raises(UsageError, match="the neurons '3' are used twice"):
        read(nn.Sequential(nn.Flatten(), first, nn.Linear(64, 64), first, nn.Linear(64, 10)))


class Between(nn.Module):
    """One operation between two layers."""

    def __init__(self, neuron: Any, between: Callable[[torch.Tensor], torch.Tensor], wide: int = 64) -> None:
        super().__init__()
        self.first, self.out, self.between = neuron.IFNode(v_threshold=0.3), nn.Linear(wide, 10), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.between(self.first(x.flatten(1))))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_part_of_an_operation_that_would_be_left_out_is_refused(neuron: Any) -> None:
    def whole_flattened(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 1).flatten(1)

    check(read(lively(Between(neuron, whole_flattened, 128))))
    weighed: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: torch.add(x, x.flatten(1), alpha=3), lambda x: torch.flatten(x, 1, 1), lambda x: x[0],
    ]  # fmt: skip
    for between in weighed:
        with pytest.raises(UsageError, match="is no layer: sums"):
            read(Between(neuron, between))


@pytest.mark.slow
def test_the_comparison_is_with_the_module_itself(neuron: Any) -> None:
    """And not with what was read of it: a hook is in no graph."""
    body = lively(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), neuron.IFNode(), nn.Linear(32, 10)))
    body[-1].register_forward_hook(lambda _module, _given, out: out * 2)  # type: ignore[index, operator]
    with pytest.raises(UsageError, match="its logits differ from its own"):
        read(body)
    body[1].register_forward_hook(lambda _module, _given, out: out[:, :0])  # type: ignore[index, operator]
    with pytest.raises(UsageError, match="can't be run one step at a time") as caught:
        read(body)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_modules_that_take_all_steps_at_once_are_run_step_by_step(neuron: Any) -> None:
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    body = nn.Sequential(
        layer.Conv2d(1, 8, 3, padding=1), neuron.LIFNode(), layer.AvgPool2d(2), layer.Flatten(), layer.Linear(128, 10)
    )
    pytest.importorskip("spikingjelly.activation_based.functional").set_step_mode(body, "m")
    check(read(lively(body)))


@pytest.mark.slow
def test_settings_that_a_module_does_not_take_are_refused(neuron: Any) -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), neuron.IFNode())
    read(body, framework="spikingjelly")
    for said, problem in (
        ({"dt": 0.1}, "leave dt and integration out"),
        ({"integration": "euler"}, "leave dt and integration out"),
        ({"framework": "norse"}, "the settings say framework norse, and its neurons are spikingjelly's"),
    ):
        with pytest.raises(UsageError, match=problem):
            read(body, **said)


@pytest.mark.slow
def test_a_readout_with_a_beta_for_each_class_is_refused() -> None:
    snntorch = pytest.importorskip("snntorch")
    first, last = snntorch.Leaky(beta=0.75, init_hidden=True), snntorch.Leaky(torch.rand(10), reset_mechanism="none")
    with pytest.raises(UsageError, match="one beta for all classes"):
        read(around(first, last))

"""Networks of NIR files: what they compute, and files that are refused by the node that can't be taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leakbench.errors import UsageError
from leakbench.foreign.hdf5 import read_tree
from leakbench.foreign.nir import network_of_tree
from leakbench.foreign.settings import NetworkSettings, read_settings
from leakbench.snn import SpikingNetwork

pytest.importorskip("h5py")

from nir_files import FLATTEN, POOL, chain, conv, lif, linear, write_nir

STEPS = 12
SAID: dict[str, Any] = {
    "format": 1, "framework": "none", "timesteps": STEPS, "dt": 1e-4, "integration": "euler",
    "neurons": {"reset": "subtract", "fires": "above", "floor": "none"},
}  # fmt: skip
ENCODED = (torch.rand(STEPS, 20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.4).double()


def read(path: Path, **changes: Any) -> SpikingNetwork:
    """Parsed in this process: that another answers the same is asked in test_confined.py and test_nir_files.py."""
    settings = NetworkSettings.model_validate({**SAID, **changes})
    return network_of_tree(read_tree(path.read_bytes()), settings).double()


def whole(path: Path, **fields: Any) -> Path:
    return chain(path, conv(4, 1), lif((4, 8, 8), **fields), POOL, FLATTEN, linear(10, 64), shape=(1, 8, 8))


def by_hand(*, leak: float, weight: float, reset: str, at: bool = False, delayed: bool = False) -> torch.Tensor:
    """Logits of that network, summed over the steps, without anything of LeakBench's."""
    _, c = conv(4, 1)
    _, d = linear(10, 64)
    w, b, out = (torch.tensor(value) for value in (c["weight"], c["bias"], d["weight"]))
    u = torch.zeros(20, 4, 8, 8, dtype=torch.float64)
    total = torch.zeros(20, 10, dtype=torch.float64)
    owed = torch.zeros_like(u)
    for x in ENCODED:
        u = leak * u + weight * torch.nn.functional.conv2d(x, w, b, padding=1) - owed
        fired = ((u >= 1) if at else (u > 1)).double()
        if reset == "value":
            u = u * (1 - fired)
        elif delayed:
            owed = fired
        else:
            u = u - fired
        total += torch.nn.functional.avg_pool2d(fired, 2).flatten(1) @ out.T
    return total


def test_a_file_is_the_network_that_it_and_its_settings_say(tmp_path: Path) -> None:
    path = whole(tmp_path / "net.nir")
    network = read(path)
    assert network.arch == "graph: conv 4 k3x3 p1x1 b; relu; avgpool k2x2; flatten; linear 10"
    wanted = by_hand(leak=0.875, weight=0.125, reset="subtract")
    assert float((network.respond(ENCODED).logits - wanted).abs().max()) < 1e-9
    # of settings that are wrong, the network is another
    for neurons in ({"reset": "value"}, {"reset_delay": True}):
        other = read(path, neurons={**SAID["neurons"], **neurons})
        assert float((other.respond(ENCODED).logits - wanted).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("neurons", "how"),
    [
        ({"reset": "value"}, {"reset": "value"}),
        ({"reset_delay": True}, {"reset": "subtract", "delayed": True}),
        ({"input_weight": 1.0}, {"reset": "subtract", "weight": 1.0}),
        ({"input_weight": "1-leak", "fires": "at"}, {"reset": "subtract", "at": True}),
    ],
)
def test_what_the_settings_say_is_done(tmp_path: Path, neurons: dict[str, Any], how: dict[str, Any]) -> None:
    network = read(whole(tmp_path / "net.nir"), neurons={**SAID["neurons"], **neurons})
    wanted = by_hand(**{"leak": 0.875, "weight": 0.125, **how})
    assert float((network.respond(ENCODED).logits - wanted).abs().max()) < 1e-9


@pytest.mark.parametrize("framework", ["none", "spikingjelly", "snntorch", "norse", "sinabs"])
def test_currents_of_neurons_without_a_leak_are_multiplied_by_what_is_said(tmp_path: Path, framework: str) -> None:
    fields = {name: np.full((4, 8, 8), value) for name, value in (("r", 3.0), ("v_threshold", 1.0))}
    path = chain(tmp_path / "net.nir", conv(4, 1), ("IF", fields), POOL, FLATTEN, linear(10, 64))
    said = {**SAID["neurons"], "reset_delay": True}
    (layer,) = read(path, framework=framework, neurons={**said, "input_weight": 0.5}).neurons
    assert set(layer.weight.flatten().tolist()) == {0.5}
    if framework != "none":  # what a framework's leaky neurons do says nothing of these
        usual, leaky = (
            read(path, framework=framework, neurons={**said, "input_weight": weight}).neurons[0].weight
            for weight in (None, "1-leak")
        )
        assert torch.equal(usual, leaky) and float(usual.max()) > 0


def test_readouts(tmp_path: Path) -> None:
    path = whole(tmp_path / "net.nir")
    summed = read(path).respond(ENCODED).logits
    mean = read(path, readout={"over": "mean", "scale": 2.0}).respond(ENCODED).logits
    assert torch.allclose(mean, 2 * summed / STEPS)
    last = read(path, readout={"over": "last"}).respond(ENCODED).logits
    shorter = read(path, timesteps=STEPS - 1).respond(ENCODED[:-1]).logits
    assert torch.allclose(last, summed - shorter)


def test_a_leak_by_a_shift_takes_the_place_of_the_file_s_own(tmp_path: Path) -> None:
    usual = SAID["neurons"]
    for tau in (8e-4, float(np.float32(8e-4))):  # 1 - 1e-4 / 8e-4 is 1 - 2^-3, and so it is of the rounded one
        layer = read(whole(tmp_path / "net.nir", tau=tau), neurons={**usual, "leak_shift": 3}).neurons[0]
        assert (int(layer.shift), float(layer.leak)) == (3, 0.875)  # type: ignore[arg-type]
    for neurons, tau, problem in (
        ({"leak_shift": 2}, 8e-4, "node '1': leak_shift 2 leaves 0.75 of a membrane after a step, and"),
        ({"leak_shift": 3}, 8.001e-4, "neurons leave 0.875016"),
        ({"leak_shift": 3, "reset_delay": True}, 8e-4, "node '1': with leak_shift a spike takes the threshold away"),
    ):
        with pytest.raises(UsageError) as caught:
            read(whole(tmp_path / "net.nir", tau=tau), neurons={**usual, **neurons})
        assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_a_leaky_integrator_is_the_readout(tmp_path: Path) -> None:
    integrator = ("LI", {"tau": np.full(10, 8e-4), "r": np.full(10, 2.0), "v_leak": np.zeros(10)})
    path = chain(tmp_path / "net.nir", conv(4, 1), lif((4, 8, 8)), POOL, FLATTEN, linear(10, 64), integrator)
    currents = [read(whole(tmp_path / "all.nir"), timesteps=t).respond(ENCODED[:t]).logits for t in range(1, STEPS + 1)]
    v, total = torch.zeros(20, 10, dtype=torch.float64), torch.zeros(20, 10, dtype=torch.float64)
    before = torch.zeros_like(v)
    for summed in currents:
        v = 0.875 * v + 0.25 * (summed - before)
        total, before = total + v, summed
    for over, wanted in (("last", v), ("sum", total), ("mean", total / STEPS)):
        network = read(path, readout={"over": over})
        assert torch.allclose(network.respond(ENCODED).logits, wanted)
        if over == "sum":  # of as many steps as it is asked for
            fewer = network.configured(replace(network.config, timesteps=STEPS // 2))
            shorter = read(path, readout={"over": over}, timesteps=STEPS // 2)
            half = ENCODED[: STEPS // 2]
            assert torch.allclose(fewer.respond(half).logits, shorter.respond(half).logits)


def test_settings_of_what_does_not_take_them_are_refused(tmp_path: Path) -> None:
    integrator = ("LI", {"tau": np.full(10, 8e-4), "r": np.full(10, 2.0), "v_leak": np.zeros(10)})
    path = chain(tmp_path / "net.nir", conv(4, 1), lif((4, 8, 8)), POOL, FLATTEN, linear(10, 64), integrator)
    names = list(read_tree(path.read_bytes())["node"]["nodes"])
    last, layer = (next(name for name in names if name.endswith(end)) for end in ("5", "4"))
    read(path, layers={last: {"input_weight": 0.5}})
    for name, problem in ((layer, "which is no layer of neurons"), (last, "takes input_weight alone")):
        with pytest.raises(UsageError, match=problem):
            read(path, layers={name: {"initial": 7.0}})


def test_spikingjelly_starts_at_the_value_of_a_reset(tmp_path: Path) -> None:
    rest = ("IF", {"r": np.full((4, 8, 8), 1e4), "v_threshold": np.ones((4, 8, 8)), "v_reset": np.full((4, 8, 8), 0.5)})
    path = chain(tmp_path / "net.nir", conv(4, 1), rest, POOL, FLATTEN, linear(10, 64), shape=(1, 8, 8))
    said = {"framework": "spikingjelly", "neurons": {}, "dt": None, "integration": None}
    ours, told, resting = (
        read(path, **{**said, "neurons": neurons}).respond(ENCODED).logits
        for neurons in ({}, {"initial": 0.5}, {"initial": 0.0})
    )
    assert torch.equal(ours, told) and not torch.allclose(ours, resting)


def test_norse_takes_the_whole_threshold_away(tmp_path: Path) -> None:
    """norse/torch/functional/reset.py, reset_subtract: v - z * v_th, whatever the resting value."""
    path = whole(tmp_path / "net.nir", v_leak=0.25, v_reset=0.25)
    said = {"framework": "norse", "neurons": {"reset": "subtract", "input_weight": 1.0}, "dt": 1e-4}
    (layer,) = read(path, **said).neurons
    assert float(layer.threshold.max()) == 0.75 and float(layer.taken.max()) == 1  # type: ignore[union-attr, operator]


def test_a_synapse_of_snntorch_with_a_delayed_reset_to_a_value_is_refused(tmp_path: Path) -> None:
    shape = (4, 8, 8)
    slow = {name: np.full(shape, 2e-4) for name in ("tau_mem", "tau_syn")}
    others = {name: np.ones(shape) for name in ("r", "w_in", "v_threshold")}
    synaptic = ("CubaLIF", {**slow, **others, "v_leak": np.zeros(shape), "v_reset": np.zeros(shape)})
    path = chain(tmp_path / "net.nir", conv(4, 1), synaptic, POOL, FLATTEN, linear(10, 64), shape=(1, 8, 8))
    said = {"framework": "snntorch", "dt": None, "integration": None}
    read(path, **said, neurons={"reset": "value", "reset_delay": False})
    for neurons, problem in (
        ({"reset": "value"}, "reset_delay"),
        ({"reset": "value", "reset_delay": True}, "reset_delay=True with a reset to a value can't be simulated"),
    ):
        with pytest.raises(UsageError, match=problem):
            read(path, **said, neurons=neurons)


def test_edges_that_meet_are_summed_up_and_their_order_is_the_graphs(tmp_path: Path) -> None:
    """Names are in no order, one branch jumps, and edges come as they like."""
    parts = dict(zip("cabz", [conv(4, 1), lif((4, 8, 8)), conv(4, 4, seed=1), lif((4, 8, 8))], strict=True))
    nodes = {"in": {"type": "Input", "shape": np.array([1, 8, 8])}} | {
        name: {"type": kind, **fields} for name, (kind, fields) in parts.items()
    }
    nodes |= {
        "f": {"type": "Flatten", **FLATTEN[1]}, "l": {"type": "Linear", **linear(10, 256)[1]},
        "out": {"type": "Output", "shape": np.array([10])},
    }  # fmt: skip
    edges = [("l", "out"), ("a", "f"), ("z", "f"), ("in", "c"), ("b", "z"), ("a", "b"), ("f", "l"), ("c", "a")]
    network = read(write_nir(tmp_path / "net.nir", nodes, edges))
    assert network.arch == ("graph: conv 4 k3x3 p1x1 b; relu; conv 4 k3x3 p1x1 b; relu; add <2 <4; flatten; linear 10")


def test_constants_may_be_one_a_channel_or_one_a_neuron(tmp_path: Path) -> None:
    tau = np.broadcast_to(np.array([1e-3, 5e-4, 2e-3, 1e-3])[:, None, None], (4, 8, 8))
    threshold = np.random.RandomState(0).rand(4, 8, 8) + 0.5
    path = chain(
        tmp_path / "net.nir", conv(4, 1), lif((4, 8, 8), tau=tau, v_threshold=threshold), FLATTEN, linear(10, 256)
    )
    (layer,) = read(path).neurons
    assert layer.leaks().shape == (4, 1, 1) and layer.threshold.shape == (4, 8, 8)  # type: ignore[union-attr]
    assert layer.initial.shape == ()


@pytest.mark.parametrize("framework", ["spikingjelly", "snntorch", "norse", "sinabs"])
def test_what_a_framework_leaves_out_has_to_be_said(tmp_path: Path, framework: str) -> None:
    tau = 10.0 if framework == "sinabs" else 1e-5 if framework == "norse" else 1e-3
    path = whole(tmp_path / "net.nir", tau=tau)
    plain = {"framework": framework, "dt": None, "integration": None}
    needed = {
        "spikingjelly": {}, "norse": {}, "snntorch": {"reset": "subtract", "reset_delay": True},
        "sinabs": {"fires": "many", "floor": -1.0, "input_weight": 1.0},
    }[framework]  # fmt: skip
    network = read(path, **plain, neurons=needed)
    leak = {"sinabs": np.exp(-0.1)}.get(framework, 0.9)
    assert float(network.neurons[0].leaks()) == pytest.approx(leak, abs=1e-6)
    for missing in needed:
        with pytest.raises(UsageError, match=f"does not say this: put .*{missing}"):
            read(path, **plain, neurons={name: value for name, value in needed.items() if name != missing})


def changed(tmp_path: Path, number: int, **fields: Any) -> Path:
    """The file with other fields of one node."""
    parts = [conv(4, 1), lif((4, 8, 8)), POOL, FLATTEN, linear(10, 64)]
    kind, usual = parts[number]
    parts[number] = (fields.pop("type", kind), {**usual, **fields})
    return chain(tmp_path / "net.nir", *parts)


@pytest.mark.parametrize(
    ("number", "fields", "problem"),
    [
        (1, {"type": "Alpha"}, r"node '1' \(Alpha\) is none of Input, Output"),
        (1, {"type": "\x1b[31m"}, r"node '1' "),
        (1, {"v_threshold": np.full((4, 8, 8), np.nan)}, "its v_threshold holds NaN"),
        (1, {"v_threshold": np.zeros((4, 8, 8))}, "thresholds must be above the resting value"),
        (1, {"v_threshold": np.ones((5, 8, 8))}, "node '1'"),
        (1, {"tau": np.full((4, 8, 8), 1e-6)}, "longer than its time constant.*Norse 1.1"),
        (1, {"tau": "slow"}, "has no numbers 'tau'"),
        (0, {"weight": np.zeros((4, 1, 3))}, "its weight has 3 axes, not 4"),
        (0, {"weight": np.zeros((4, 2, 3, 3))}, "node '0': its weight is"),
        (0, {"bias": np.ones(5)}, "node '0': its bias is"),
        (0, {"groups": np.array(3)}, "3 groups"),
        (0, {"groups": np.array(1.5)}, "its groups is no whole number of at least 1"),
        (0, {"groups": np.array(0)}, "its groups is no whole number of at least 1"),
        (0, {"groups": np.array([1, 1])}, "its groups is no whole number of at least 1"),
        (0, {"padding": "reflect"}, "has no numbers 'padding'"),
        (0, {"stride": np.array([1.5, 1])}, "no pair of whole numbers"),
        (2, {"kernel_size": np.array([0, 0])}, "a size of 0"),
        (4, {"weight": np.zeros((10, 65))}, "node '4': its weight is"),
        (4, {"weight": np.zeros((10, 8, 8))}, "its weight has 3 axes, not 2"),
    ],
)
def test_what_can_not_be_taken_is_named(tmp_path: Path, number: int, fields: dict[str, Any], problem: str) -> None:
    path = changed(tmp_path, number, **fields)
    with pytest.raises(UsageError, match=problem) as caught:
        read(path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_graphs_that_can_not_be_taken_are_refused(tmp_path: Path) -> None:
    nodes = {
        "in": {"type": "Input", "shape": np.array([1, 8, 8])}, "f": {"type": "Flatten", **FLATTEN[1]},
        "l": {"type": "Linear", **linear(10, 64)[1]}, "n": {"type": "LIF", **lif((10,))[1]},
        "out": {"type": "Output", "shape": np.array([10])},
    }  # fmt: skip
    chained = [("in", "f"), ("f", "l"), ("l", "n"), ("n", "out")]
    for edges, problem in (
        ([*chained, ("n", "l")], "is on a loop or behind one"),
        ([*chained, ("x", "l")], "an edge is of a node that is not there"),
        (chained[1:], "gets no input"),
        (chained[:-1], "its output must come from one node"),
        ([("in", "f"), ("f", "l"), ("l", "n"), ("f", "out")], "leads nowhere"),
    ):
        with pytest.raises(UsageError, match=problem):
            read(write_nir(tmp_path / "net.nir", nodes, edges))
    for shape, problem in (
        ([64], "images .C, H, W."), ([2, 1, 8, 8], "images .C, H, W."), ([1, 8, 0], "images"),
        ([1.0, np.nan, 8.0], "of whole numbers"), ([1.0, np.inf, 8.0], "of whole numbers"), ([1, 8.5, 8], "of whole"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=problem):
            read(write_nir(tmp_path / "net.nir", {**nodes, "in": {"type": "Input", "shape": np.array(shape)}}, chained))
    with pytest.raises(UsageError, match="a layer that is not there: 'q'"):
        read(write_nir(tmp_path / "net.nir", nodes, chained), layers={"q": {"reset": "value"}})
    of_batch = {**nodes, "in": {"type": "Input", "shape": np.array([1, 1, 8, 8])}}
    assert read(write_nir(tmp_path / "net.nir", of_batch, chained)).image_shape == (1, 8, 8)


def test_normalised_images_enter_as_they_are(tmp_path: Path) -> None:
    path = whole(tmp_path / "net.nir")
    direct = {"encoder": "direct", "mean": [0.3], "std": [0.5]}
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    plain = read(path, input={"encoder": "direct"})
    assert torch.allclose(read(path, input=direct)(images), plain((images - 0.3) / 0.5))
    with pytest.raises(UsageError, match="mean is of 3 channels, and the images have 1"):
        read(path, input={**direct, "mean": [0, 0, 0]})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "valid dictionary"),
        ('{"format": 2, "timesteps": 4}', "format: input should be 1"),
        ('{"format": 1}', "timesteps: field required"),
        ('{"format": 1, "timesteps": 0}', "timesteps: input should be greater than"),
        ('{"format": 1, "timesteps": 4, "dt": NaN}', "dt"),
        ('{"format": 1, "timesteps": 4, "neurons": {"rest": 0}}', "neurons.rest: extra inputs .* .known: reset,"),
        ('{"format": 1, "timesteps": 4, "framework": "brian"}', "framework: input should be 'spikingjelly'"),
        ('{"format": 1, "timesteps": 4, "input": {"mean": [0.3]}}', 'put "encoder": "direct"'),
        ('{"format": 1, "timesteps": 4, "input": {"range": [0, 255]}}', "a probability to fire, .* got .0.0, 255.0."),
        ('{"format": 1, "forward": "images", "input": {"encoder": "direct"}}', "encodes them itself: leave it out"),
    ],
)  # fmt: skip
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem) as caught:
        read_settings(path, "--settings")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        read_settings(tmp_path / "other.json", "--settings")

"""Whole weights, thresholds and shifts: the network is what integer hardware computes, spike by spike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from leakbench.contracts import InputRange
from leakbench.errors import UsageError
from leakbench.models.files import network_bytes, read_network
from leakbench.models.storage import build_ann, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.general import CONSTANTS, FIRES, General, GeneralNeuron, _Steps
from leakbench.snn.readout import Readout

STEPS, BATCH = 20, 6
Whole = NDArray[np.int64]


def hardware(x: Whole, weights: dict[str, Whole], theta: tuple[int, int], shift: int, fires: str, reset: str) -> Whole:
    """Sums of output spikes [B, 4] for input [T, B, 2, 8, 8], in whole numbers alone."""
    states: list[Any] = [np.zeros((BATCH, 3, 8, 8), np.int64), np.zeros((BATCH, 4), np.int64)]
    counts = np.zeros((BATCH, 4), np.int64)

    def step(layer: int, current: Whole) -> Whole:
        v = states[layer]
        if shift:
            v = v - (v >> shift)
        v = v + current
        spikes = (v > theta[layer]) if fires == "above" else (v >= theta[layer])
        states[layer] = v - theta[layer] * spikes if reset == "subtract" else np.where(spikes, 0, v)
        assert np.abs(v).max() < 2**24
        return np.asarray(spikes, np.int64)

    for frame in x:
        around = np.pad(frame, ((0, 0), (0, 0), (1, 1), (1, 1)))
        maps = np.zeros((BATCH, 3, 8, 8), np.int64) + weights["bias"][:, None, None]
        for row in range(3):
            for column in range(3):
                part = around[:, :, row : row + 8, column : column + 8]
                maps += np.einsum("oi,bihw->bohw", weights["conv"][:, :, row, column], part)
        spikes = step(0, maps)
        pooled = spikes.reshape(BATCH, 3, 4, 2, 4, 2).sum((3, 5)).reshape(BATCH, -1)
        counts += step(1, pooled @ weights["linear"].T)
    return counts


def drawn() -> dict[str, Whole]:
    random = np.random.RandomState(0)
    sizes = {"conv": (3, 2, 3, 3), "bias": (3,), "linear": (4, 48)}
    made = {name: random.randint(-128, 128, size) for name, size in sizes.items()}
    made["linear"] = np.clip(made["linear"] + 60, -128, 127)  # most excite, so that spikes come through
    return {**made, "bias": made["bias"] * 3}


def network(weights: dict[str, Whole], theta: tuple[int, int], shift: int, fires: str, reset: str) -> SpikingNetwork:
    ann = build_ann("graph: conv 3 k3x3 p1x1 b; relu; sumpool k2x2; flatten; linear 4; relu", (2, 8, 8), 4,
                    InputRange(0.0, 1.0))  # fmt: skip
    made = SpikingNetwork.from_ann(ann, SpikingConfig(STEPS, neuron=GeneralNeuron(), readout=Readout(1.0, "last")))
    state = made.state_dict()
    for name, ours in (("conv", "n1.weight"), ("bias", "n1.bias"), ("linear", "n5.weight")):
        state[f"body.{ours}"].copy_(torch.from_numpy(weights[name]))
    for layer, threshold in zip(made.neurons, theta, strict=True):
        assert isinstance(layer, General)
        layer.set_threshold(float(threshold))
        layer.taken.fill_(threshold)
        layer.subtracts.fill_(int(reset == "subtract"))
        layer.fires.fill_(FIRES.index(fires))  # type: ignore[arg-type]
        if shift:
            layer.set_shift(shift)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("reset", ["subtract", "value"])
@pytest.mark.parametrize("fires", ["above", "at"])
@pytest.mark.parametrize("shift", [0, 1, 3, 6])
def test_it_is_integer_arithmetic(shift: int, fires: str, reset: str, tmp_path: Path) -> None:
    """Through a file, which has int8 weights of scale 1."""
    weights, theta = drawn(), (200, 300)
    content = network_bytes(network(weights, theta, shift, fires, reset))
    kept = load(content)
    assert torch.equal(kept["body.n1.weight"], torch.from_numpy(weights["conv"]).to(torch.int8))
    assert kept["body.n5.weight_scale"].tolist() == [1.0] * 4
    assert ("body.n2.shift" in kept) == (shift > 0)
    (tmp_path / "net.safetensors").write_bytes(content)
    made = read_network(tmp_path / "net.safetensors", "--snn")
    assert isinstance(made, SpikingNetwork)
    x = np.random.RandomState(1).randint(0, 2, (STEPS, BATCH, 2, 8, 8))
    wanted = hardware(x, weights, theta, shift, fires, reset)
    assert 5 < wanted.sum() < wanted.size * STEPS
    got = made.respond(torch.from_numpy(x).float()).logits
    assert np.array_equal(got.numpy(), wanted.astype(np.float32))


def test_a_shift_rounds_towards_minus_infinity() -> None:
    layer = General("n", GeneralNeuron())
    layer.set_threshold(100.0)
    layer.set_shift(2)
    constants = [layer.threshold, *(getattr(layer, name) for name in CONSTANTS)]
    state = torch.tensor([[7.0, 3.0, -1.0, -7.0], [0.0, 0.0, 0.0, 0.0]])
    _, last = _Steps.apply(torch.zeros(1, 4), state, constants, "at", layer.neuron, layer.shift)  # type: ignore[no-untyped-call]
    assert last[0].tolist() == [6.0, 3.0, 0.0, -5.0] == [float(v - (v >> 2)) for v in (7, 3, -1, -7)]


def test_its_gradient_is_that_of_the_factor() -> None:
    """Of membranes that are multiples of 2^k a shift rounds nothing: both are the same there, gradients included."""
    images = (8.0 * torch.randint(-3, 4, (1, 50), generator=torch.Generator().manual_seed(0))).requires_grad_()
    grads = []
    for by_shift in (True, False):
        layer = General("n", GeneralNeuron())
        layer.set_threshold(16.0)
        layer.taken.fill_(16.0)
        layer.leak.fill_(0.875)
        if by_shift:
            layer.set_shift(3)
        constants = [layer.threshold, *(getattr(layer, name) for name in CONSTANTS)]
        x = torch.cat([images, torch.zeros(1, 50)])
        out, last = _Steps.apply(x, torch.zeros(2, 50), constants, "above", layer.neuron, layer.shift)  # type: ignore[no-untyped-call]
        (out.sum() + last.sum()).backward()
        assert images.grad is not None
        grads.append(images.grad.clone())
        images.grad = None
    assert torch.equal(*grads) and grads[0].abs().max() > 0


@pytest.mark.parametrize("shift", [-1, 17, 2.0])
def test_a_shift_that_is_none_is_refused(shift: Any) -> None:
    with pytest.raises(UsageError, match=r"a leak's shift must be a whole number in 0\.\.16"):
        General("n", GeneralNeuron()).set_shift(torch.tensor(shift))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"shift": torch.tensor(-1)}, "'n2': shift must be in 0..16"),
        ({"shift": torch.tensor(60)}, "'n2': shift must be in 0..16"),
        ({"shift": torch.tensor(4)}, "'n2': leak must be 1 - 2^-shift where shift is above 0"),
        ({"shift": torch.tensor(3.0)}, "'n2.shift' holds torch.float32: save it as torch.int64"),
        ({"shift": torch.full((3, 1, 1), 3), "leak": torch.full((2, 1, 1), 0.875)}, "'n2': shift and leak are of"),
    ],
)
def test_shifts_in_files_are_looked_at(changes: dict[str, torch.Tensor], problem: str, tmp_path: Path) -> None:
    tensors, record = save_network(network(drawn(), (200, 300), 3, "at", "subtract"))
    tensors |= {f"body.n2.{name}": tensor for name, tensor in changes.items()}
    path = tmp_path / "net.safetensors"
    path.write_bytes(save(tensors, {"leakbench": json.dumps({"format": 1, "network": record})}))
    with pytest.raises(UsageError) as caught:
        read_network(path, "--snn")
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_neurons_without_a_shift_are_kept_as_before() -> None:
    tensors, _ = save_network(network(drawn(), (200, 300), 0, "at", "subtract"))
    assert not [name for name in tensors if name.endswith("shift")]

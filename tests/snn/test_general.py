"""Neurons of imported networks: against their equations, and against LeakBench's own where these are a case of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.snn import SpikingConfig, SpikingNetwork
from leakbench.snn.general import CONSTANTS, FIRES, General, GeneralNeuron, _Steps
from leakbench.snn.neurons import LIF, Neuron, Run
from leakbench.snn.readout import Readout
from leakbench.snn.surrogates import Surrogate

RULES = st.sampled_from(FIRES)
FACTORS = st.floats(0, 1)


def layer(**constants: float | str) -> General:
    made = General("n", GeneralNeuron()).double()
    made.set_threshold(float(constants.pop("theta", 1.0)))
    made.fires.fill_(FIRES.index(constants.pop("fires", "above")))  # type: ignore[arg-type]
    made.initial.fill_(float(constants.pop("initial", 0.0)))
    for name, value in constants.items():
        getattr(made, name).fill_(value)
    if "rest" in constants:
        made.subtracts.fill_(0)
    return made


def simulated(neurons: LIF, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of [T, N] currents, and how many spikes there were."""
    run = Run(1, torch.zeros(1, 2, dtype=torch.int32), 0, len(x))
    neurons.run = run
    return neurons(x), run.counts["n"]


@settings(max_examples=60, deadline=None)
@given(
    weight=st.floats(0.1, 2), leak=FACTORS, synapse=FACTORS, theta=st.floats(0.3, 2), taken=st.floats(0.2, 2),
    fires=RULES,
    rest=st.one_of(st.none(), st.floats(-0.5, 0.2)), initial=st.floats(-0.5, 0.5),
    floor=st.one_of(st.just(-1e30), st.floats(-1, 0)), worth=st.floats(0.2, 2), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_equations_step_by_step(
    theta: float, fires: str, initial: float, rest: float | None, seed: int, **c: float
) -> None:
    c |= {} if rest is None else {"rest": rest}
    x = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out, spikes = simulated(layer(theta=theta, fires=fires, initial=initial, **c), x)
    total = 0
    for neuron in range(3):
        u, j = initial, 0.0
        for step in range(12):
            j = c["synapse"] * j + c["weight"] * float(x[step, neuron])
            pre = c["leak"] * u + j
            if fires == "many":
                n = max(0, math.trunc(pre / theta))
            else:
                n = int(pre > theta or (fires == "at" and pre == theta))
            fallen = c.get("rest", pre - c["taken"] * n)
            u = fallen if n else pre
            u = max(u, c["floor"])
            total += n
            assert float(out[step, neuron]) == pytest.approx(c["worth"] * n, abs=1e-9)
    assert int(spikes) == total


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_leakbenchs_own_neurons_are_a_case_of_it(reset: Any, leak: float) -> None:
    x = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    own = LIF("n", Neuron(leak, reset))
    own.set_threshold(0.7)
    same = layer(theta=0.7, leak=leak, taken=0.7, worth=0.7, **({"rest": 0.0} if reset == "hard" else {})).float()
    for one, other in zip(simulated(own, x), simulated(same, x), strict=True):
        assert torch.equal(one, other)


def test_at_the_threshold_and_above_it_differ_where_a_membrane_meets_it() -> None:
    x = torch.tensor([[1.0], [0.0], [1.5]], dtype=torch.float64)
    outs = {rule: simulated(layer(fires=rule, taken=1.0), x)[0].flatten().tolist() for rule in FIRES}
    assert outs == {"above": [0.0, 0.0, 1.0], "at": [1.0, 0.0, 1.0], "many": [1.0, 0.0, 1.0]}
    more = simulated(layer(fires="many", taken=1.0), 3 * x)[0].flatten().tolist()
    assert more == [3.0, 0.0, 4.0]


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("rest", [None, 0.1])
@pytest.mark.parametrize("fires", FIRES)
def test_the_gradient_is_that_of_the_surrogate(fires: str, rest: float | None, detach: bool) -> None:
    """Against autograd over the same steps, with a spike whose derivative is replaced one step at a time."""
    neuron = GeneralNeuron(detach_reset=detach, surrogate=Surrogate("triangle"))
    made = layer(theta=0.8, weight=1.2, leak=0.9, synapse=0.4, taken=0.7, floor=-0.3, worth=1.3, fires=fires)
    if rest is not None:
        made.rest.fill_(rest)
        made.subtracts.fill_(0)
    constants = [made.threshold, *(getattr(made, name) for name in CONSTANTS)]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(9, 6, dtype=torch.float64, generator=generator).requires_grad_()
    state = torch.rand(2, 6, dtype=torch.float64, generator=generator).requires_grad_()
    weight, last_weight = (torch.randn(n, 6, dtype=torch.float64, generator=generator) for n in (9, 2))
    out, last = _Steps.apply(x, state, constants, fires, neuron)  # type: ignore[no-untyped-call]
    (weight * out).sum().add((last_weight * last).sum()).backward()

    theta, scale, leak, synapse, _, taken, rest_, floor, worth = constants
    y, begun = x.detach().clone().requires_grad_(), state.detach().clone().requires_grad_()
    u, j = begun.unbind(0)
    total = torch.zeros((), dtype=torch.float64)
    for step in range(9):
        j = synapse * j + scale * y[step]
        pre = leak * u + j
        v = pre.detach() / theta
        n = {"above": (v > 1).double(), "at": (v >= 1).double(), "many": v.trunc().clamp(min=0)}[fires]
        nearest = (v.round() - 1).clamp(min=0) if fires == "many" else 0
        slope = (1 - (v - nearest - 1).abs()).clamp(min=0)
        spike = n + slope / theta * (pre - pre.detach())
        in_reset = n if detach else spike
        if rest is None:
            u = pre - taken * in_reset
        else:
            u = torch.where(n > 0, rest_, pre) + (rest_ - pre).detach() * (in_reset - in_reset.detach())
        u = torch.maximum(u, floor)
        total = total + (weight[step] * worth * spike).sum()
    (total + (last_weight * torch.stack([u, j])).sum()).backward()
    assert y.grad is not None and begun.grad is not None and x.grad is not None and state.grad is not None
    assert torch.allclose(x.grad, y.grad) and torch.allclose(state.grad, begun.grad)


def network(steps: int = 12, **constants: float | str) -> SpikingNetwork:
    """A small one of such neurons, thresholds 1."""
    ann = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0))
    made = SpikingNetwork.from_ann(ann, SpikingConfig(steps, neuron=GeneralNeuron()))
    for neurons in made.neurons:
        filled = layer(**constants).float()
        neurons.load_state_dict(filled.state_dict())
    return made


IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
PLAIN: dict[str, float | str] = {"leak": 0.8, "synapse": 0.5, "fires": "at", "floor": -1.0}


def test_chunks_of_time_are_the_whole() -> None:
    whole, parts = network(**PLAIN), network(**PLAIN)
    parts.memory_budget = 4 * parts.topology.elements * 4 * 2 * 3
    assert parts.chunk_steps(4) < 12
    images = IMAGES.clone().requires_grad_(), IMAGES.clone().requires_grad_()
    one, other = whole(images[0], seed=1), parts(images[1], seed=1)
    assert torch.allclose(one, other, atol=1e-6)
    one.square().sum().backward()
    other.square().sum().backward()
    assert images[0].grad is not None and images[1].grad is not None
    assert torch.allclose(images[0].grad, images[1].grad, rtol=1e-4, atol=1e-6)


def test_lif_networks_and_these_are_the_same_network() -> None:
    ann = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0))
    own = SpikingNetwork.from_ann(ann, SpikingConfig(12, neuron=Neuron(0.9)))
    for neurons in own.neurons:
        neurons.set_threshold(1.0)
    same = network(leak=0.9)
    assert torch.allclose(own(IMAGES, seed=3), same(IMAGES, seed=3), atol=1e-6)
    encoded = torch.rand(12, 4, 1, 8, 8, generator=torch.Generator().manual_seed(4)).round()
    one, other = own.respond(encoded), same.respond(encoded)
    assert torch.equal(one.logits, other.logits) and one.spikes == other.spikes


def test_what_a_network_is_survives_the_store() -> None:
    made = network(**PLAIN, taken=0.7)
    made.neurons[0].leak = torch.full((32, 1, 1), 0.7)
    made.neurons[1].floor = torch.linspace(-1, -0.1, 64).view(64, 1, 1)
    made.neurons[1].subtracts = torch.arange(64).view(64, 1, 1) % 2
    made = made.configured(replace(made.config, readout=Readout(0.5, "last", 2.0)))
    tensors, record = save_network(made)
    again = load_network(tensors, json.loads(json.dumps(record)), torch.device("cpu"))
    assert isinstance(again, SpikingNetwork) and again.config == made.config
    assert torch.equal(again(IMAGES, seed=1), made(IMAGES, seed=1))


def test_records_of_networks_that_read_means_are_as_before() -> None:
    assert "readout" not in SpikingConfig(4).to_json()


@pytest.mark.parametrize("over", ["mean", "sum", "last"])
@pytest.mark.parametrize("leak", [0.0, 0.6, 1.0])
def test_logits_are_what_the_readout_says(leak: float, over: Any) -> None:
    made = network(**PLAIN)
    outs: list[torch.Tensor] = []
    made.body[-1].register_forward_hook(lambda _m, _a, out: outs.append(out.view(-1, 4, 3)))  # type: ignore[operator, index]
    encoded = torch.rand(12, 4, 1, 8, 8, generator=torch.Generator().manual_seed(4)).round()
    read = made.configured(replace(made.config, readout=Readout(leak, over, 3.0)))
    logits = read.respond(encoded).logits
    m, total = torch.zeros(4, 3), torch.zeros(4, 3)
    for out in torch.cat(outs).unbind(0):
        m = leak * m + out
        total += m
    wanted = {"mean": total / 12, "sum": total, "last": m}[over]
    assert torch.allclose(logits, 3 * wanted, atol=1e-5)


def test_a_readout_of_sums_takes_the_fast_path() -> None:
    ann = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), torch.Generator().manual_seed(0))
    readouts = Readout(), Readout(1.0, "last"), Readout(0.5, "last"), Readout(1.0, "mean")
    for readout in (*readouts, Readout(0.0, "sum"), Readout(0.5, "sum")):
        one, other = (SpikingNetwork.from_ann(ann, SpikingConfig(12, readout=readout)) for _ in range(2))
        other.fast = False
        for neurons in (*one.neurons, *other.neurons):
            neurons.set_threshold(1.0)
        for stop in (5, 12):
            at = [made.simulate_at(IMAGES, [5, 12], seed=1)[stop].logits for made in (one, other)]
            assert torch.allclose(*at, atol=1e-5)
            alone = one.configured(replace(one.config, timesteps=stop))(IMAGES, seed=1)
            assert torch.allclose(at[0], alone, atol=1e-5)


def test_an_ann_of_a_network_that_ends_in_spikes_keeps_what_is_below_zero() -> None:
    ann = ImageClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU()), (1, 8, 8), 3,
        InputRange(0.0, 1.0), "none",
    )  # fmt: skip
    made = SpikingNetwork.from_ann(ann, SpikingConfig(8, neuron=GeneralNeuron()))
    for neurons in made.neurons:
        neurons.set_threshold(1.0)
    relu = made.requires_grad_(False).reconvert()
    assert float(relu(IMAGES).min()) < 0
    assert torch.equal(relu(IMAGES), ann.body[:4](IMAGES))  # type: ignore[index]
    logits = made(IMAGES, seed=0)
    assert logits.min() >= 0 and logits.max() <= 1

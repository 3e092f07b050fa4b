"""Energy: sums done by hand, the arithmetic behind the paper's Table 5 and the formula's symmetries."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leakbench.bench.stages.utility import operations
from leakbench.contracts import ImageClassifier
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.energy import (
    FP32,
    INT32,
    EnergyConstants,
    LayerOperations,
    ann_energy_pj,
    energy_ratio,
    energy_ratios,
    memory_inclusive_ratio,
    paper_energy_ratio,
    quantized_ann_bits,
    quantized_ann_energy_pj,
    quantized_ann_ratio,
    quantized_mac_pj,
    snn_energy_pj,
    sram_access_pj,
)
from leakbench.snn import INPUT, SpikingConfig, SpikingNetwork

# a 3x3 convolution from 2x4x4 to 3x4x4 under constant current, and a fully connected layer from 48 to 10
CONV = LayerOperations(
    "conv",
    3 * 4 * 4 * 2 * 9,
    32,
    0.0,
    True,
    output_neurons=48,
    parameters=3 * 2 * 9,
    spikes_out=24.0,
    spiking_neurons=48,
)
FC = LayerOperations("fc", 480, 48, 24.0, False, output_neurons=10, parameters=480)


@st.composite
def spiking_layers(draw: st.DrawFn) -> list[LayerOperations]:
    def one(i: int) -> LayerOperations:
        inputs, outputs, reuse = (draw(st.integers(1, 1000)) for _ in range(3))
        return LayerOperations(
            f"layer{i}",
            macs=inputs * outputs * reuse,
            input_neurons=inputs,
            spikes_in=draw(st.floats(0.01, 1e5)),
            constant_current=False,
            output_neurons=outputs,
            parameters=inputs * outputs,
        )

    return [one(i) for i in range(draw(st.integers(1, 5)))]


def test_by_hand() -> None:
    layers = [CONV, FC]
    assert ann_energy_pj(layers, INT32) == pytest.approx((864 + 480) * 3.2)
    # the convolution's current once as MACs; the linear layer: half a spike per neuron over the inference
    assert snn_energy_pj(layers, INT32) == pytest.approx(864 * 3.2 + 480 * 0.5 * 0.1)
    assert energy_ratio(layers, INT32) == pytest.approx(1344 * 3.2 / (864 * 3.2 + 24))
    assert energy_ratio(layers, FP32) == pytest.approx(1344 * 4.6 / (864 * 4.6 + 240 * 0.9))


@pytest.mark.slow
@given(spiking_layers())
def test_one_rate_everywhere_gives_the_closed_form(layers: list[LayerOperations]) -> None:
    layers = [dataclasses.replace(layer, spikes_in=0.25 * layer.input_neurons) for layer in layers]
    assert energy_ratio(layers, INT32) == pytest.approx(32 / 0.25, rel=1e-9)
    assert energy_ratio(layers, FP32) == pytest.approx(4.6 / 0.9 / 0.25, rel=1e-9)


# --- the paper's convention

# VGG16 on 32 x 32 pixels, by hand: 3 x 3 convolutions as (channels in, channels out, side), averaging by two behind
# the 2nd, 4th, 7th, 10th and 13th, then 512 - 4096 - 10
CONVOLUTIONS = (
    (3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), (256, 256, 8), (256, 256, 8),
    (256, 512, 4), (512, 512, 4), (512, 512, 4), (512, 512, 2), (512, 512, 2), (512, 512, 2),
)  # fmt: skip
MACS, LAST = 315_334_656, 4096 * 10
FIRST = 3 * 64 * 9 * 32**2
BEHIND_POOLING = 9 * (64 * 128 * 16**2 + 128 * 256 * 8**2 + 256 * 512 * 4**2 + 512 * 512 * 2**2) + 512 * 4096


def vgg16(rate: float, spikes_a_pixel: float) -> list[LayerOperations]:
    """Every neuron of every layer makes ``rate`` spikes, and every pixel ``spikes_a_pixel``."""
    shapes = [(9 * i * o * side**2, i * side**2, o * side**2) for i, o, side in CONVOLUTIONS]
    shapes += [(512 * 4096, 512, 4096), (4096 * 10, 4096, 10)]
    layers, made = [], spikes_a_pixel * 3 * 32**2
    for number, (macs, inputs, outputs) in enumerate(shapes):
        own = 0 if number == len(shapes) - 1 else outputs
        layers.append(
            LayerOperations(
                str(number), macs, inputs, made, False, outputs, 1, spikes_out=rate * own, spiking_neurons=own
            )
        )
        made = rate * own
    return layers


# mean |x| = .5 over T = 150 steps of the Poisson code
PIXEL = 0.5 * 150


def test_table_5_as_the_paper_counts_it_and_as_we_do() -> None:
    assert sum(layer.macs for layer in vgg16(1, 1)) == MACS
    # one rate in all layers: 32 F / (r (F - F of the output layer))
    rate = 32 * MACS / (55.8 * (MACS - LAST))
    assert rate == pytest.approx(0.5736, abs=5e-5)
    layers = vgg16(rate, PIXEL)
    assert paper_energy_ratio(layers) == pytest.approx(55.8, rel=1e-12)
    # the same spikes where they arrive: four reach each pooled input, and the code's own are counted
    arriving = rate * (MACS - FIRST + 3 * BEHIND_POOLING) + PIXEL * FIRST
    assert energy_ratio(layers, INT32) == pytest.approx(32 * MACS / arriving, rel=1e-12)
    assert energy_ratio(layers, INT32) == pytest.approx(23.5, abs=0.05)


@given(st.floats(0.01, 10), st.floats(0, 500))
def test_the_papers_ratio_knows_no_input_spikes_and_no_pooling(rate: float, pixel: float) -> None:
    expected = 32 * MACS / (rate * (MACS - LAST))
    assert paper_energy_ratio(vgg16(rate, pixel)) == pytest.approx(expected, rel=1e-9)


def test_the_papers_ratio_by_hand() -> None:
    # half a spike for each of the convolution's neurons; the output layer makes none; no MAC, whatever the code
    assert paper_energy_ratio([CONV, FC]) == pytest.approx(1344 * 3.2 / (864 * 0.5 * 0.1))


def with_pooling(pool: nn.Module) -> SpikingNetwork:
    body = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4)
    )
    return SpikingNetwork.from_ann(ImageClassifier(body, (2, 4, 4), 4, (0.0, 1.0)), SpikingConfig(6))


def test_a_layer_s_own_spikes_are_counted_before_pooling() -> None:
    network = with_pooling(nn.AvgPool2d(2))
    counted = {INPUT: 90.0, "1": 17.0, "5": 4.0}
    conv, hidden, last = operations(network, counted)
    assert (conv.spikes_in, conv.spikes_out, conv.spiking_neurons) == (90.0, 17.0, 48)
    assert (hidden.spikes_in, hidden.input_neurons, hidden.spikes_out, hidden.spiking_neurons) == (17.0, 12, 4.0, 5)
    assert (last.spikes_in, last.spikes_out, last.spiking_neurons) == (4.0, 0.0, 0)


def test_behind_max_pooling_the_spikes_that_pass_it_enter() -> None:
    network = with_pooling(nn.MaxPool2d(2))
    assert network.max_pools == ["2"]
    conv, hidden, last = operations(network, {INPUT: 90.0, "1": 17.0, "2": 7.0, "5": 4.0})
    assert (conv.spikes_in, conv.spikes_out) == (90.0, 17.0)
    assert (hidden.spikes_in, hidden.input_neurons, last.spikes_in) == (7.0, 12, 4.0)


def test_every_branch_of_a_sum_has_the_rate_of_the_neurons_behind_it() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 1)
            self.relu, self.last = nn.ReLU(), nn.Linear(32, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.relu(self.one(x) + self.other(x)).flatten(1))  # type: ignore[no-any-return]

    network = SpikingNetwork.from_ann(ImageClassifier(Branches(), (1, 4, 4), 3, (0.0, 1.0)), SpikingConfig(6))
    one, other, last = operations(network, {INPUT: 1.0, "relu": 8.0})
    assert [(layer.spikes_out, layer.spiking_neurons) for layer in (one, other, last)] == [(8.0, 32)] * 2 + [(0.0, 0)]


# --- the others


@pytest.mark.slow
@given(spiking_layers(), st.floats(0.1, 10))
def test_the_snn_costs_in_proportion_to_its_spikes(layers: list[LayerOperations], factor: float) -> None:
    busier = [dataclasses.replace(layer, spikes_in=factor * layer.spikes_in) for layer in layers]
    assert snn_energy_pj(busier, FP32) == pytest.approx(factor * snn_energy_pj(layers, FP32), rel=1e-9)
    assert energy_ratio(busier, FP32) == pytest.approx(energy_ratio(layers, FP32) / factor, rel=1e-9)
    assert ann_energy_pj(busier, FP32) == ann_energy_pj(layers, FP32)


def test_a_silent_network_has_no_ratio() -> None:
    silent = dataclasses.replace(FC, spikes_in=0.0)
    with pytest.raises(NumericalError, match="no spike"):
        energy_ratio([silent], INT32)
    # with a constant current its first layer still costs
    assert energy_ratio([CONV, silent], INT32) == pytest.approx(1344 / 864)
    with pytest.raises(NumericalError, match="no neuron made a spike"):
        paper_energy_ratio([dataclasses.replace(CONV, spikes_out=0.0), silent])


def test_all_ratios_by_their_names() -> None:
    ratios = energy_ratios([CONV, FC], 10)
    assert ratios.undefined == {}
    assert ratios.values == {
        "energy_ratio_paper": paper_energy_ratio([CONV, FC]),
        "energy_ratio_int32": energy_ratio([CONV, FC], INT32),
        "energy_ratio_fp32": energy_ratio([CONV, FC], FP32),
        "energy_ratio_memory": memory_inclusive_ratio([CONV, FC], 10),
        "energy_ratio_quantized": quantized_ann_ratio([CONV, FC], 10),
    }


def test_a_ratio_that_is_not_defined_is_left_out_with_its_reason() -> None:
    # the input spikes and nothing else does: only what counts own spikes has no value
    deaf = dataclasses.replace(FC, spiking_neurons=10)
    ratios = energy_ratios([deaf], 10)
    assert set(ratios.undefined) == {"energy_ratio_paper"}
    assert "no neuron made a spike" in ratios.undefined["energy_ratio_paper"]
    # not even that: neurons are still evaluated, which costs memory accesses
    nothing = energy_ratios([dataclasses.replace(deaf, spikes_in=0.0)], 10)
    assert set(nothing.values) == {"energy_ratio_memory"} and len(nothing.undefined) == 4
    with pytest.raises(UsageError, match="fc"):
        energy_ratios([dataclasses.replace(FC, macs=0)], 10)


@pytest.mark.parametrize("constants", [INT32, FP32, EnergyConstants("equal", 1.0, 1.0)])
def test_what_can_not_be_priced_is_refused(constants: EnergyConstants) -> None:
    with pytest.raises(UsageError):
        energy_ratio([], constants)
    for bad in (
        dataclasses.replace(FC, macs=0),
        dataclasses.replace(FC, input_neurons=0),
        dataclasses.replace(FC, spikes_in=-1.0),
        dataclasses.replace(FC, spikes_out=-1.0),
    ):
        with pytest.raises(UsageError, match="fc"):
            energy_ratio([bad], constants)
    for bad_count in (math.nan, math.inf):
        with pytest.raises(NumericalError, match="fc"):
            energy_ratio([dataclasses.replace(FC, spikes_in=bad_count)], constants)


def test_memory_figure_by_hand() -> None:
    steps = 10

    def sram(words: int) -> float:
        return 1.09e-5 * 32 * words + 13.2

    ann_conv = 864 * 3.2 + 864 * sram(54) + 864 * sram(32) + 48 * sram(48)
    ann_fc = 480 * 3.2 + 480 * sram(480) + 48 * sram(48) + 10 * sram(10)
    snn_conv = ann_conv + steps * 48 * (0.1 + 3 * sram(48))
    # 24 spikes to 10 neurons each: 240 accumulates
    snn_fc = 240 * sram(480) + (240 + steps * 10) * (0.1 + 2 * sram(10)) + 2 * 24 * 13.2
    expected = (ann_conv + ann_fc) / (snn_conv + snn_fc)
    assert memory_inclusive_ratio([CONV, FC], steps) == pytest.approx(expected, rel=1e-12)


def test_sram_energies_are_near_horowitz() -> None:
    # the line is a least-squares fit through 10, 20 and 100 pJ: its residuals are below 5 pJ
    for kilobytes, picojoules in [(8, 10), (32, 20), (1024, 100)]:
        assert abs(sram_access_pj(kilobytes * 1024 // 4) - picojoules) < 5


@pytest.mark.slow
@given(spiking_layers(), st.integers(1, 200))
def test_memory_figure_falls_with_spikes_and_with_steps(layers: list[LayerOperations], steps: int) -> None:
    ratio = memory_inclusive_ratio(layers, steps)
    busier = [dataclasses.replace(layer, spikes_in=2 * layer.spikes_in) for layer in layers]
    assert 0 < memory_inclusive_ratio(busier, steps) < ratio
    assert memory_inclusive_ratio(layers, steps + 1) < ratio


def test_memory_figure_needs_its_counts() -> None:
    for bad in (dataclasses.replace(FC, output_neurons=0), dataclasses.replace(FC, parameters=0)):
        with pytest.raises(UsageError, match="output_neurons and parameters"):
            memory_inclusive_ratio([bad], 10)
    with pytest.raises(UsageError, match="timesteps"):
        memory_inclusive_ratio([FC], 0)


@given(st.integers(1, 10**6))
def test_bits_are_just_enough_for_every_rate(timesteps: int) -> None:
    bits = quantized_ann_bits(timesteps)
    assert 2 ** (bits - 1) < timesteps + 1 <= 2**bits


def test_bits_at_the_papers_time_steps() -> None:
    assert [quantized_ann_bits(t) for t in (1, 3, 4, 150, 255, 256)] == [1, 2, 3, 8, 8, 9]
    with pytest.raises(UsageError):
        quantized_ann_bits(0)


# --- the quantised peer


def test_a_multiplication_costs_as_many_additions_as_it_has_bits() -> None:
    assert quantized_mac_pj(32) == pytest.approx(INT32.mac_pj)
    assert quantized_mac_pj(8) == pytest.approx(8 * 3.1 / 32 + 0.1)
    # the rule behind it, the product of both widths, at Horowitz's 8 x 8 bits: .2 pJ to the digit that he prints
    assert round(3.1 * 8 * 8 / 32**2, 1) == 0.2


def test_the_quantised_peer_by_hand() -> None:
    # T = 10 is 4 bits; the convolution reads pixels, not quantised activations
    expected = 864 * 3.2 + 480 * (4 * 3.1 / 32 + 0.1)
    assert quantized_ann_energy_pj([CONV, FC], 10) == pytest.approx(expected)
    assert quantized_ann_ratio([CONV, FC], 10) == pytest.approx(expected / (864 * 3.2 + 24))


def test_at_the_papers_t_the_snn_breaks_even_at_875_accumulates_a_synapse() -> None:
    def at(rate: float) -> float:
        return quantized_ann_ratio([dataclasses.replace(FC, spikes_in=rate * 48)], 150)

    assert at(8.75) == pytest.approx(1) and at(8.7) > 1 > at(8.8)


@pytest.mark.slow
@given(spiking_layers(), st.integers(1, 10_000))
def test_the_quantised_peer_never_takes_more_than_the_ann(layers: list[LayerOperations], timesteps: int) -> None:
    assert 0 < quantized_ann_ratio(layers, timesteps) < energy_ratio(layers, INT32)
    assert quantized_ann_ratio(layers, 2 * timesteps + 1) > quantized_ann_ratio(layers, timesteps)  # a bit more

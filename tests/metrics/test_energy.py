"""Energy: sums done by hand, the arithmetic behind the paper's Table 5 and the formula's symmetries."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.energy import (
    FP32,
    INT32,
    EnergyConstants,
    LayerOperations,
    ann_energy_pj,
    energy_ratio,
    memory_inclusive_ratio,
    quantized_ann_bits,
    snn_energy_pj,
    sram_access_pj,
)

# a 3x3 convolution from 2x4x4 to 3x4x4 under constant current, and a fully connected layer from 48 to 10
CONV = LayerOperations("conv", 3 * 4 * 4 * 2 * 9, 32, 0.0, True, output_neurons=48, parameters=3 * 2 * 9)
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


@given(spiking_layers())
def test_one_rate_everywhere_gives_the_closed_form(layers: list[LayerOperations]) -> None:
    layers = [dataclasses.replace(layer, spikes_in=0.25 * layer.input_neurons) for layer in layers]
    assert energy_ratio(layers, INT32) == pytest.approx(32 / 0.25, rel=1e-9)
    assert energy_ratio(layers, FP32) == pytest.approx(4.6 / 0.9 / 0.25, rel=1e-9)


@pytest.mark.parametrize(("ratio", "rate"), [(55.8, 0.573), (27.9, 1.147), (53.9, 0.594)])
def test_table_5_under_int32(ratio: float, rate: float) -> None:
    # the paper's ratios and the spikes per neuron that they imply, to the three digits that are printed
    layer = LayerOperations("all", 315_330_000, 280_586, rate * 280_586, constant_current=False)
    assert energy_ratio([layer], INT32) == pytest.approx(ratio, abs=0.06)


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


@pytest.mark.parametrize("constants", [INT32, FP32, EnergyConstants("equal", 1.0, 1.0)])
def test_what_can_not_be_priced_is_refused(constants: EnergyConstants) -> None:
    with pytest.raises(UsageError):
        energy_ratio([], constants)
    for bad in (
        dataclasses.replace(FC, macs=0),
        dataclasses.replace(FC, input_neurons=0),
        dataclasses.replace(FC, spikes_in=-1.0),
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

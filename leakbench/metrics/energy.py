"""Energy of one inference, ANN against SNN (docs/method.md, Energy)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from leakbench.contracts import Params
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.metric import Metric


@dataclass(frozen=True)
class LayerOperations:
    """One weight layer's operations, mean per image over the whole inference of T steps."""

    layer: str
    macs: int
    """multiply-accumulates of one ANN pass, F_l"""
    input_neurons: int
    """elements of the layer's own input (behind a pooling layer: the pooled ones)"""
    spikes_in: float
    """spikes made by the neurons that feed the layer, over all T steps, counted where they are made, or, behind max
    pooling, those that pass it"""
    constant_current: bool
    """driven by the direct code: costs F_l MACs once (the current of a constant image is computed once)"""
    output_neurons: int = 0
    parameters: int = 0
    """weights of the layer without biases; 0: not counted, and no memory-inclusive figure then"""
    spikes_out: float = 0.0
    """spikes made by the layer's own neurons over all T steps, before any pooling behind them"""
    spiking_neurons: int = 0
    """the neurons that make them; 0: none do (the output layer)"""


@dataclass(frozen=True)
class EnergyConstants:
    """What an operation costs, in pJ."""

    name: str
    mac_pj: float
    """a multiply-accumulate"""
    ac_pj: float
    """an accumulate"""


# 45 nm, 0.9 V: Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9 (add + multiply, 32 bits)
INT32 = EnergyConstants("int32", mac_pj=3.2, ac_pj=0.1)
FP32 = EnergyConstants("fp32", mac_pj=4.6, ac_pj=0.9)

PAPER_RATIO = "energy_ratio_paper"
"""the one ratio that is counted as the paper's are"""
ENERGY_RATIOS = (
    "energy_ratio_int32",
    "energy_ratio_fp32",
    "energy_ratio_memory",
    "energy_ratio_quantized",
    PAPER_RATIO,
)
"""by the names that they have in the records, in the order of the tables"""

WORD_BITS = 32
"""of weights, potentials and activations in the memory-inclusive figure, as in INT32"""


@dataclass(frozen=True)
class EnergyRatios:
    """Every ratio of one network that is defined, and why each of the others is not."""

    values: Mapping[str, float]
    """metric -> ratio"""
    undefined: Mapping[str, str]
    """metric -> reason, one line"""


def energy_ratios(layers: Sequence[LayerOperations], timesteps: int) -> EnergyRatios:
    """The five ratios by the names that they have in the records.

    UsageError where the counts themselves are no counts; a ratio that is not defined is left out with its reason.
    """
    figures: dict[str, Callable[[], float]] = {
        PAPER_RATIO: lambda: paper_energy_ratio(layers),
        "energy_ratio_int32": lambda: energy_ratio(layers, INT32),
        "energy_ratio_fp32": lambda: energy_ratio(layers, FP32),
        "energy_ratio_memory": lambda: memory_inclusive_ratio(layers, timesteps),
        "energy_ratio_quantized": lambda: quantized_ann_ratio(layers, timesteps),
    }
    values, undefined = {}, {}
    for name, ratio in figures.items():
        try:
            values[name] = ratio()
        except NumericalError as error:
            undefined[name] = str(error)
    return EnergyRatios(values, undefined)


def ann_energy_pj(layers: Sequence[LayerOperations], constants: EnergyConstants) -> float:
    """E_ANN = sum over layers of F_l * E_MAC: pJ per image."""
    return sum(_checked(layer).macs for layer in _some(layers)) * constants.mac_pj


def snn_energy_pj(layers: Sequence[LayerOperations], constants: EnergyConstants) -> float:
    """E_SNN = sum over layers of F_l * R_l * E_AC: pJ per image, over all T steps.

    R_l = spikes_in / input_neurons, so F_l * R_l are the accumulates that the spikes cause. A layer under
    constant current costs F_l * E_MAC, once.
    """
    total = 0.0
    for layer in map(_checked, _some(layers)):
        if layer.constant_current:
            total += layer.macs * constants.mac_pj
        else:
            total += _accumulates(layer) * constants.ac_pj
    return total


def energy_ratio(layers: Sequence[LayerOperations], constants: EnergyConstants) -> float:
    """How many times less the SNN's arithmetic takes: E_ANN / E_SNN, with accumulates where spikes arrive.

    Not what the paper's Table 5 has: see :func:`paper_energy_ratio`. R_l is the rate of the spikes that *enter* a
    layer, those of the input code included. Left out, as in the paper: potentials (T additions, a leak and a
    comparison per neuron), the encoder, and every memory access, which costs more than the arithmetic: see
    :func:`memory_inclusive_ratio`. Raises NumericalError where the SNN made no spike at all (and no layer runs on a
    constant current): the ratio would be infinite, and such a network is dead.
    """
    spent = snn_energy_pj(layers, constants)
    if spent == 0:
        raise NumericalError("the spiking network made no spike on any image: its energy ratio is undefined")
    return ann_energy_pj(layers, constants) / spent


def paper_energy_ratio(layers: Sequence[LayerOperations]) -> float:
    """E_ANN / E_SNN as the paper counts it: the one ratio that may stand beside its Table 5.

    E_SNN = sum of F_l * R_l * E_AC with R_l = spikes_out / spiking_neurons, the spikes per neuron *of layer l* over
    the whole inference, and INT32 constants. The paper says "spike rate (i.e., the average number of spikes across
    time) of all layers" and leaves the rest to its supplement; read to the letter

    - spikes are counted before pooling, over the neurons that make them: that four of them reach each pooled input of
      the next layer is not counted;
    - the input's spikes belong to no layer and cost nothing, whatever the code; the first layer is counted by what its
      own neurons make;
    - the output layer makes no spikes and costs nothing.

    Taking R_l from the layer before instead moves VGG16's ratio at one rate everywhere by .6 %. Raises NumericalError
    where no neuron made a spike.
    """
    accumulates = sum(
        layer.macs * layer.spikes_out / layer.spiking_neurons
        for layer in map(_checked, _some(layers))
        if layer.spiking_neurons
    )
    if accumulates == 0:
        raise NumericalError("no neuron made a spike on any image: the paper's energy ratio is undefined")
    return ann_energy_pj(layers, INT32) / (accumulates * INT32.ac_pj)


def memory_inclusive_ratio(layers: Sequence[LayerOperations], timesteps: int) -> float:
    """E_ANN / E_SNN with memory accesses, after Lemaire et al. 2022 (arXiv 2210.13107), INT32 at 45 nm.

    Every access is priced by the SRAM that holds the data (:func:`sram_access_pj`). Per layer, with F MACs, I
    input and O output neurons, s spikes in and A = F * s / I accumulates:

    - ANN: F MACs; F reads of weights; reads of inputs, F in a convolution and I in a fully connected layer
      (there every weight is used once, F = parameters); O writes of outputs.
    - SNN: A + T*O accumulates; A reads of weights; A + T*O reads and writes of potentials (every neuron is
      evaluated at every step); each spike written to a queue once and read from it once.
    - SNN under constant current: the ANN's cost once; then at each step O reads of the stored current, O
      reads and writes of potentials and O accumulates.

    Left out, because small beside the accesses or unknown here: address arithmetic, biases, the leak's
    multiply, the reset. No data reuse (registers, caches) is assumed on either side, which favours the SNN:
    dense layers are where reuse pays. Needs ``output_neurons`` and ``parameters`` in every layer and
    timesteps >= 1, else UsageError.
    """
    if timesteps < 1:
        raise UsageError(f"timesteps must be at least 1, got {timesteps}")
    ann = snn = 0.0
    for layer in map(_checked, _some(layers)):
        if layer.output_neurons < 1 or layer.parameters < 1:
            raise UsageError(f"layer {layer.layer!r}: the memory figure needs output_neurons and parameters")
        ann += _ann_layer_pj(layer)
        snn += _snn_layer_pj(layer, timesteps)
    return ann / snn


def sram_access_pj(words: int) -> float:
    """One read or write of a 32-bit word in an SRAM of ``words`` words: 1.09e-5 * bits stored + 13.2 pJ.

    Lemaire et al.'s line through Horowitz's 8 kB, 32 kB and 1 MB memories (10, 20, 100 pJ). 0 words: a queue.
    """
    return 1.09e-5 * words * WORD_BITS + 13.2


def quantized_ann_bits(timesteps: int) -> int:
    """Bits of the ANN that is the honest peer of T steps of rate code: ceil(log2(T + 1)).

    T binary steps can tell T + 1 rates apart (Yan et al. 2024, arXiv 2409.08290). UsageError for T < 1.
    """
    if timesteps < 1:
        raise UsageError(f"timesteps must be at least 1, got {timesteps}")
    return timesteps.bit_length()


def quantized_mac_pj(bits: int) -> float:
    """A multiply-accumulate of a 32-bit weight with an activation of ``bits`` bits into a 32-bit sum, INT32 at 45 nm.

    The array of a multiplier, and with it its energy, grows with the product of both widths: of Horowitz's 3.1 pJ for
    32 x 32 bits that is bits / 32, about one 32-bit addition (.1 pJ) a bit. The rule gives .19 pJ for 8 x 8 bits;
    Horowitz has .2. The addition stays .1 pJ.
    """
    return (INT32.mac_pj - INT32.ac_pj) * bits / 32 + INT32.ac_pj


def quantized_ann_energy_pj(layers: Sequence[LayerOperations], timesteps: int) -> float:
    """pJ per image of the ANN whose activations have :func:`quantized_ann_bits` bits.

    Weights keep their 32 bits, as the SNN's do: T steps replace the precision of activations, not of weights, and
    smaller weights would make both cheaper. A layer that the SNN drives with a constant current reads pixels of full
    precision, in its peer too: F * E_MAC.
    """
    price = quantized_mac_pj(quantized_ann_bits(timesteps))
    return sum(
        layer.macs * (INT32.mac_pj if layer.constant_current else price) for layer in map(_checked, _some(layers))
    )


def quantized_ann_ratio(layers: Sequence[LayerOperations], timesteps: int) -> float:
    """E_QANN / E_SNN, arithmetic alone, INT32: below 1 a quantised ANN would have been cheaper.

    Both carry activations of as many levels (Yan et al. 2024, arXiv 2409.08290). At T = 150 (8 bits) the SNN wins
    below 8.75 accumulates a synapse. Raises NumericalError as :func:`energy_ratio` does.
    """
    return energy_ratio(layers, INT32) * quantized_ann_energy_pj(layers, timesteps) / ann_energy_pj(layers, INT32)


def _ann_layer_pj(layer: LayerOperations) -> float:
    fully_connected = layer.parameters == layer.macs
    input_reads = layer.input_neurons if fully_connected else layer.macs
    return (
        layer.macs * INT32.mac_pj
        + layer.macs * sram_access_pj(layer.parameters)
        + input_reads * sram_access_pj(layer.input_neurons)
        + layer.output_neurons * sram_access_pj(layer.output_neurons)
    )


def _snn_layer_pj(layer: LayerOperations, timesteps: int) -> float:
    step_updates = timesteps * layer.output_neurons
    potential = sram_access_pj(layer.output_neurons)
    if layer.constant_current:
        return _ann_layer_pj(layer) + step_updates * (INT32.ac_pj + 3 * potential)
    accumulates = _accumulates(layer)
    return (
        accumulates * sram_access_pj(layer.parameters)
        + (accumulates + step_updates) * (INT32.ac_pj + 2 * potential)
        + 2 * layer.spikes_in * sram_access_pj(0)
    )


def _accumulates(layer: LayerOperations) -> float:
    return layer.macs * layer.spikes_in / layer.input_neurons


def _some(layers: Sequence[LayerOperations]) -> Sequence[LayerOperations]:
    if not layers:
        raise UsageError("an energy figure needs at least one weight layer")
    return layers


def _checked(layer: LayerOperations) -> LayerOperations:
    if layer.macs < 1 or layer.input_neurons < 1:
        raise UsageError(f"layer {layer.layer!r}: macs and input_neurons must be at least 1")
    for name, spikes in (("spikes_in", layer.spikes_in), ("spikes_out", layer.spikes_out)):
        if not math.isfinite(spikes):
            raise NumericalError(f"layer {layer.layer!r}: {name} is {spikes}, no number of spikes")
        if spikes < 0:
            raise UsageError(f"layer {layer.layer!r}: {name} can't be negative, got {spikes}")
    return layer


class EnergyRatioInt32(Metric[Params]):
    """Energy of one inference, ANN over this network. Accumulates are counted where spikes arrive, those of the input
    included. INT32 at 45 nm: 3.2 pJ a MAC, .1 pJ an accumulate.
    """

    name = "energy_ratio_int32"
    title = "E(ANN) / E(SNN), INT32"
    unit = "ratio"


class EnergyRatioFp32(Metric[Params]):
    """Energy of one inference, ANN over this network, from the same counts. FP32 at 45 nm: 4.6 pJ a MAC, .9 pJ an
    accumulate.
    """

    name = "energy_ratio_fp32"
    title = "E(ANN) / E(SNN), FP32"
    unit = "ratio"


class EnergyRatioPaper(Metric[Params]):
    """Energy of one inference, ANN over this network, as the PrivateSNN paper counts it: spikes per neuron of each
    layer before pooling, those of the input left out; INT32 constants. The one ratio to compare with its Table 5. It
    leaves out accumulates that the network does need: of spikes that reach pooled inputs, and of the input's own.
    """

    name = PAPER_RATIO
    title = "E(ANN) / E(SNN), the paper's count"
    unit = "ratio"


class EnergyRatioMemory(Metric[Params]):
    """Energy of one inference, ANN over this network, with every read and write of weights, inputs and potentials
    priced by the SRAM that holds them, INT32 (Lemaire et al. 2022). No data are reused on either side.
    """

    name = "energy_ratio_memory"
    title = "E(ANN) / E(SNN), with memory"
    unit = "ratio"


class EnergyRatioQuantized(Metric[Params]):
    """Energy of one inference against an ANN whose activations have ceil(log2(T + 1)) bits, as many levels as T steps
    can distinguish. Arithmetic alone, INT32. Below 1 that ANN is the cheaper one.
    """

    name = "energy_ratio_quantized"
    title = "E(quantised ANN) / E(SNN)"
    unit = "ratio"

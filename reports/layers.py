"""What a defence did layer by layer: operations behind its energy, and how far its weights moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from leakbench.errors import LeakBenchError
from leakbench.metrics.energy import (
    FP32,
    INT32,
    LayerOperations,
    ann_energy_pj,
    quantized_ann_bits,
    quantized_ann_energy_pj,
    snn_energy_pj,
)
from leakbench.records import CellRecord
from leakbench.reports.summary import Group


@dataclass(frozen=True)
class LayerTable:
    """A table of one defence and seed; the first column names the layer."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]
    """a last row of sums; empty where sums mean nothing"""
    note: str = ""


ENERGY_COLUMNS = (
    "Layer",
    "MACs of the ANN, F",
    "Input neurons",
    "Spikes in per inference",
    "Rate R per input neuron",
    "Accumulates, F·R",
    "MACs of the SNN",
    "Spikes per neuron of the layer",
)
MOTION_COLUMNS = ("Layer", "Cosine to the ANN", "Relative change, ‖ΔW‖ / ‖W‖")


def energy_tables(group: Group) -> list[LayerTable]:
    """Operations per image of every defence that counted them."""
    return [_energy(_title(group, cell), cell.energy, cell.timesteps) for cell in _alone(group) if cell.energy]


def motion_tables(group: Group) -> list[LayerTable]:
    """Weight motion of every defence that has the ANN's layers."""
    return [
        LayerTable(
            _title(group, cell),
            MOTION_COLUMNS,
            tuple((layer.layer, f"{layer.cosine:.4f}", f"{layer.relative_norm:.4f}") for layer in cell.motion),
            (),
        )
        for cell in _alone(group)
        if cell.motion
    ]


def _energy(title: str, layers: list[LayerOperations], timesteps: int | None) -> LayerTable:
    rows, macs, accumulates, left = [], 0, 0.0, 0
    for layer in layers:
        rate = layer.spikes_in / layer.input_neurons if layer.input_neurons else 0.0
        # A layer on the direct code multiplies once a picture instead of adding spikes.
        added, multiplied = (0.0, layer.macs) if layer.constant_current else (layer.macs * rate, 0)
        macs, accumulates, left = macs + layer.macs, accumulates + added, left + multiplied
        rows.append(
            (
                layer.layer,
                f"{layer.macs:,}",
                f"{layer.input_neurons:,}",
                "constant current" if layer.constant_current else f"{layer.spikes_in:,.1f}",
                "–" if layer.constant_current else f"{rate:.3f}",
                f"{added:,.0f}",
                f"{multiplied:,}",
                f"{layer.spikes_out / layer.spiking_neurons:.3f}" if layer.spiking_neurons else "–",
            )
        )
    total = ("Total", f"{macs:,}", "", "", "", f"{accumulates:,.0f}", f"{left:,}", "")
    return LayerTable(title, ENERGY_COLUMNS, tuple(rows), total, " ".join(_energies(layers, timesteps)))


def _energies(layers: list[LayerOperations], timesteps: int | None) -> Iterator[str]:
    for constants in (INT32, FP32):
        try:
            ann, snn = ann_energy_pj(layers, constants), snn_energy_pj(layers, constants)
        except LeakBenchError:
            continue  # counts that no energy can be made of are still shown
        yield f"{constants.name.upper()}: ANN {ann / 1000:,.1f} nJ, this network {snn / 1000:,.1f} nJ."
        if timesteps and constants is INT32:
            peer = quantized_ann_energy_pj(layers, timesteps)
            yield f"ANN of {quantized_ann_bits(timesteps)}-bit activations: {peer / 1000:,.1f} nJ."


def _alone(group: Group) -> list[CellRecord]:
    return [cell for experiment in group.with_attack("") for cell in experiment.cells]


def _title(group: Group, cell: CellRecord) -> str:
    return f"{cell.defense}, seed {cell.seed}" if len(group.seeds) > 1 else cell.defense

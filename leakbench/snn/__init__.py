"""Neurons, surrogates, encoders, spiking networks and threshold calibration; no knowledge of any attack."""

from leakbench.snn.backward import add_gradients
from leakbench.snn.calibration import (
    balance_thresholds,
    highest_activations,
    mean_activations,
    mean_outputs,
    percentile_activations,
    set_thresholds,
    watch_activations,
)
from leakbench.snn.encoders import EncoderName
from leakbench.snn.graph import INPUT, Topology, WeightLayer, trace
from leakbench.snn.network import Simulation, SpikingConfig, SpikingNetwork, relu_network
from leakbench.snn.neurons import LIF, Neuron
from leakbench.snn.rate_gradients import RateNetwork
from leakbench.snn.surrogates import Surrogate
from leakbench.snn.twin import Agreement, agreements, analog_twin
from leakbench.snn.weight_normalization import is_chain, reconverted, scale_weights, searched

__all__ = [
    "INPUT",
    "LIF",
    "Agreement",
    "EncoderName",
    "Neuron",
    "RateNetwork",
    "Simulation",
    "SpikingConfig",
    "SpikingNetwork",
    "Surrogate",
    "Topology",
    "WeightLayer",
    "add_gradients",
    "agreements",
    "analog_twin",
    "balance_thresholds",
    "highest_activations",
    "is_chain",
    "mean_activations",
    "mean_outputs",
    "percentile_activations",
    "reconverted",
    "relu_network",
    "scale_weights",
    "searched",
    "set_thresholds",
    "trace",
    "watch_activations",
]

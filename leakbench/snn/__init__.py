"""Neurons, surrogates, encoders, spiking networks and threshold calibration; no knowledge of any attack."""

from leakbench.snn.calibration import balance_thresholds
from leakbench.snn.encoders import EncoderName
from leakbench.snn.network import Simulation, SpikingConfig, SpikingNetwork, relu_network
from leakbench.snn.neurons import LIF, Neuron
from leakbench.snn.surrogates import Surrogate
from leakbench.snn.topology import INPUT, Topology, WeightLayer, trace

__all__ = [
    "INPUT",
    "LIF",
    "EncoderName",
    "Neuron",
    "Simulation",
    "SpikingConfig",
    "SpikingNetwork",
    "Surrogate",
    "Topology",
    "WeightLayer",
    "balance_thresholds",
    "relu_network",
    "trace",
]

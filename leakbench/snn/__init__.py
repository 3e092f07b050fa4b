"""Neurons, surrogates, encoders, spiking networks and threshold calibration; no knowledge of any attack."""

from leakbench.snn.calibration import balance_thresholds
from leakbench.snn.encoders import EncoderName
from leakbench.snn.network import Simulation, SpikingConfig, SpikingNetwork, relu_network
from leakbench.snn.neurons import LIF, Neuron
from leakbench.snn.rates import RateNetwork
from leakbench.snn.scaling import reconverted
from leakbench.snn.surrogates import Surrogate
from leakbench.snn.topology import INPUT, Topology, WeightLayer, trace
from leakbench.snn.twin import Agreement, agreement, analog_twin

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
    "agreement",
    "analog_twin",
    "balance_thresholds",
    "reconverted",
    "relu_network",
    "trace",
]

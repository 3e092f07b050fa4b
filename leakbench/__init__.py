"""LeakBench: the benchmark that tells what a spiking neural network gives away."""

from leakbench.registry import register

__version__ = "0.2.0"
__all__ = ["__version__", "register"]

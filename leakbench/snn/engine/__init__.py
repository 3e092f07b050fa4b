"""The fast paths of a simulation: compiled kernels for CPUs, Triton for GPUs, the same numbers as the plain loop."""

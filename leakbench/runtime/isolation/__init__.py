"""Plugins in processes of their own, which hold nothing that they were not given: see docs/isolation.md.

:mod:`~leakbench.runtime.isolation.confinement` closes a process by the kernel, ``grants`` says what it may read,
``messages`` is what goes over its pipes, ``server`` and ``serving`` are the two ends of them, ``stand_in`` is what
takes a plugin's place in the process that has the data.
"""

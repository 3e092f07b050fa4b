"""What a process loads when it starts: nothing that takes long and that its first task may not need."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

HEAVY = ("numba", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "torchvision", "pytorch_fid", "torch._dynamo")
"""each takes a third of torch's time to load, or more"""


@cache
def loaded_by(module: str) -> frozenset[str]:
    """The names of all modules in a fresh process that has imported one."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return frozenset(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("module", ["leakbench.bench.executors", "leakbench.bench.runner", "leakbench.snn"])
def test_a_worker_starts_with_torch_and_nothing_else_that_is_slow(module: str) -> None:
    loaded = loaded_by(module)
    assert "torch" in loaded  # what is not imported at all would pass for free
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.slow
def test_a_worker_starts_without_plugins() -> None:
    plugins = ("leakbench.attacks.", "leakbench.defenses.")
    assert not [name for name in loaded_by("leakbench.bench.executors") if name.startswith(plugins)]


@pytest.mark.long
@pytest.mark.slow
def test_what_training_evaluation_models_takes_is_counted_without_torchs_compiler() -> None:
    """Every run begins with that, to say how long it takes."""
    for shape in ((1, 8, 8), (3, 32, 32)):
        work = f"one.judge_work(one.model_of('model 1', {shape}), {shape}, 10, 9, 9, False)"
        loaded = loaded_by(f"leakbench.leakage.inversion.evaluation as one; {work}")
        assert "torch" in loaded
        assert loaded.isdisjoint({"torch._dynamo", "sympy"})


@pytest.mark.parametrize(
    "module", ["leakbench", "leakbench.api", "leakbench.cli", "leakbench.data", "leakbench.registry"]
)
def test_what_lists_and_helps_imports_no_torch(module: str) -> None:
    assert loaded_by(module).isdisjoint(("torch", *HEAVY))

"""What a process that LeakBench owns is: cores, memory, threads, environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import leakbench
from leakbench.runtime import process
from leakbench.runtime.process import (
    available_cores,
    available_memory,
    device_answers,
    environment,
    fixed_threads,
    has_bfloat16,
    tune_process,
)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that can take cores away")
def test_cores_are_those_that_this_process_may_use() -> None:
    before, cores = os.sched_getaffinity(0), available_cores()
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == cores <= len(before)


def test_memory_is_what_could_be_taken() -> None:
    assert 1 << 26 < available_memory() < 1 << 50


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control group of a batch job: its process is in a group of its own below, which has no limits."""
    groups, own = tmp_path / "groups", tmp_path / "groups" / "batch" / "job_7" / "step_0"
    own.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("4:memory:/other\n0::/batch/job_7/step_0\n", encoding="utf-8")
    monkeypatch.setattr(process, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(process, "_CGROUPS", groups)
    for name, text in {"memory.max": "max", "memory.current": "5", "memory.stat": "", "cpu.max": "max 100000"}.items():
        (own / name).write_text(text, encoding="utf-8")
    return own.parent


def test_a_job_has_what_its_group_has_left_without_files_that_were_read(job: Path) -> None:
    (job / "memory.max").write_text(str(1 << 25), encoding="utf-8")
    (job / "memory.current").write_text(str(3 << 23), encoding="utf-8")
    (job / "memory.stat").write_text(f"anon {1 << 22}\ninactive_file {1 << 22}\n", encoding="utf-8")
    assert available_memory() == (1 << 25) - (3 << 23) + (1 << 22)


def test_a_job_has_as_many_cores_as_its_quota(job: Path) -> None:
    everything = available_cores()
    (job / "cpu.max").write_text("50000 100000", encoding="utf-8")
    assert available_cores() == 1
    (job / "cpu.max").write_text("6400000 100000", encoding="utf-8")
    assert available_cores() == everything


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor\t: 0\nmodel name\t: EPYC\nflags\t\t: fpu avx2 fma\nbugs\t: avx512_bf16\n", False),
        ("processor\t: 0\n", None),
        (None, None),
    ],
)
def test_processors_that_multiply_in_bfloat16_are_known(
    text: str | None, known: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    assert has_bfloat16() is known


def test_a_process_whose_gpu_answers_no_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_device: str) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    assert device_answers("cpu") and device_answers("cuda:0")  # which was never asked for anything
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert device_answers("cpu") and not device_answers("cuda:0")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    assert device_answers("cuda:0")


def threads_now() -> set[int]:
    """Of torch and of every pool in this process: one number, where nothing is forgotten."""
    return {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}


@pytest.mark.slow
def test_threads_are_fixed_everywhere_and_given_back() -> None:
    assert {pool["user_api"] for pool in threadpool_info()} == {"blas", "openmp"}
    with threadpool_limits(4):  # gives the pools back
        torch.set_num_threads(4)
        for count in (3, 1, 2):
            with fixed_threads(count):
                assert threads_now() == {count}
            with pytest.raises(RuntimeError), fixed_threads(count):
                raise RuntimeError
        assert threads_now() == {4}
    torch.set_num_threads(1)


@pytest.mark.long
@pytest.mark.slow
def test_libraries_that_are_loaded_inside_have_the_same_threads() -> None:
    code = (
        "import torch; from threadpoolctl import threadpool_info; from leakbench.runtime.process import fixed_threads\n"
        "with fixed_threads(1):\n"
        "    before = len(threadpool_info()); import sklearn.neighbors\n"
        "    print(len(threadpool_info()) > before, {pool['num_threads'] for pool in threadpool_info()})\n"
        "    with fixed_threads(2): print({pool['num_threads'] for pool in threadpool_info()})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True {1}", "{2}"]


def test_fixed_threads_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with fixed_threads(2):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "2"
    assert dict(os.environ) == before


def test_a_tuned_process_counts_the_smallest_numbers_as_0() -> None:
    tune_process()
    assert float(torch.tensor(1e-40) * 1) == 0


def test_an_environment_says_what_computes() -> None:
    found = environment(torch.device("cpu"))
    assert found["leakbench"] == leakbench.__version__
    assert found["torch"] == torch.__version__
    assert (found["device"], found["threads"]) == ("cpu", str(torch.get_num_threads()))
    assert all(isinstance(value, str) and value for value in found.values())
    assert {"python", "numpy", "numba", "processor"} <= found.keys()

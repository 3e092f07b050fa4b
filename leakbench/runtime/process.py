"""What a process that LeakBench owns is: its threads, its memory, and what it computes with."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version as package_version
from pathlib import Path, PurePosixPath

import torch
from threadpoolctl import ThreadpoolController

import leakbench
from leakbench.errors import UsageError

PACKAGES = ("torch", "torchvision", "numpy", "numba", "scipy", "scikit-learn", "safetensors")
"""what numbers may depend on"""
_POOL_SIZES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""read by a pool when its library is loaded"""
_CPUINFO = Path("/proc/cpuinfo")
_CGROUP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_BFLOAT16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
"""as Linux names its instructions: of x86, and of ARM"""


def available_cores() -> int:
    """Cores that this process may use: of the machine's, or as many as the quota of a control group amounts to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups():
        with contextlib.suppress(OSError, ValueError):  # "max": no quota
            quota, period = map(int, (group / "cpu.max").read_text().split())
            cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def available_memory() -> int:
    """Bytes of memory that are free, as far as the system tells: the machine's, or the rest of a control group's limit
    (a container's, a batch job's), where files that were read and can be dropped do not count as used."""
    left = [_of_machine()]
    for group in _control_groups():
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
            kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            left.append(limit - used + int(kinds.get("inactive_file", 0)))
    return max(0, min(left))


def _control_groups() -> list[Path]:
    """The folders of the control groups (version 2) that this process is in, its own first; none on other systems."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in _CGROUP.read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                own = PurePosixPath(line.removeprefix("0::/"))
                return [_CGROUPS / path for path in (own, *own.parents)]
    return []


def _of_machine() -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize  # unknown: no limit


def thread_pools() -> ThreadpoolController:
    """The thread pools of the libraries that this process has loaded.

    A look through all of its libraries takes milliseconds, and every call of a plugin needs one: it is taken again only
    when modules were imported since.
    """
    return _thread_pools(len(sys.modules))


@lru_cache(maxsize=1)
def _thread_pools(_modules: int) -> ThreadpoolController:
    return ThreadpoolController()


@contextlib.contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """``count`` threads for torch, for numpy's and scipy's pools and for our kernels, and what there was afterwards.

    Sums over several threads come out in another order, so that a network trained on two threads is another network:
    the number is part of what is computed, and never follows from the machine's cores. Libraries that are loaded
    inside, as scipy and scikit-learn are by the first metric that needs them, begin with ``count`` threads, too.
    """
    threads, variables = torch.get_num_threads(), {name: os.environ.get(name) for name in _POOL_SIZES}
    torch.set_num_threads(count)
    os.environ.update(dict.fromkeys(_POOL_SIZES, str(count)))
    try:
        with thread_pools().limit(limits=count):
            yield
    finally:
        torch.set_num_threads(threads)
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def tune_process() -> None:
    """Set a process that LeakBench owns up for large tensors; never called by importing the library.

    glibc gives every large tensor fresh pages and takes them back when it is freed: page faults then cost more than
    the arithmetic (1.5-2x on training). Keeping freed memory in the process avoids them.

    PyTorch lets convolutions on CUDA round to 10 bits (tf32) unasked. A network's answers are never, by
    :func:`leakbench.contracts.precision.arithmetic`; gradients are taken outside of it, and features of images, too.

    Numbers below 1e-38 count as 0: a network that weight decay has taken a third of its weights to such numbers took
    several times as long to train and to ask.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_flush_denormal(True)  # of this thread, and of the threads that it starts
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, 2**31 - 1)


def environment(device: torch.device) -> dict[str, str]:
    """What this process computes with: versions, threads, processor, device. Stands in every artifact's manifest."""
    return {
        "leakbench": leakbench.__version__,
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "torch": str(torch.__version__),  # with its build (+cpu, +cu132), which packages need not say
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": str(torch.get_num_threads()),
    }


def has_bfloat16() -> bool | None:
    """Whether the processor multiplies in bfloat16: without, oneDNN converts each number, which takes many times as
    long as float32. None where that is not known, as on other systems than Linux."""
    flags = (_of_processor("flags") or _of_processor("Features")).split()
    return bool(_BFLOAT16.intersection(flags)) if flags else None


def _processor() -> str:
    return _of_processor("model name") or platform.processor() or "unknown"


def _of_processor(name: str) -> str:
    """What Linux says of the first core; empty where it says nothing."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            key, _, text = line.partition(":")
            if key.strip() == name:
                return text.strip()
    return ""


def device_answers(name: str) -> bool:
    """Whether this process can go on computing on a device: after some errors on CUDA, as an index out of range, none
    of its calls is answered any more."""
    if not name.startswith("cuda") or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize(name)
    except RuntimeError:
        return False
    return True


def device_here(name: str) -> str:
    """The device, or the CPU in a process that lacks it, as one may that drives workers on other machines."""
    try:
        return check_device(name)
    except UsageError:
        return "cpu"


def check_device(name: str) -> str:
    """``auto`` is the first accelerator that is there, else the CPU; anything else must exist."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        unknown = "device type" in str(error) and "device string" in str(error)
        why = "no such device: give auto, cpu or cuda" if unknown else str(error).partition("\n")[0]
        raise UsageError(f"--device {name}: not usable here ({why}): cpu always is") from None
    return name

"""The fence around every call of a plugin: what it leaves behind in the process is put back, whatever it raises ends.

This protects cells from plugins that are careless. It is no protection against one that means harm: a plugin runs in
a process that also holds the data and the judges.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leakbench import registry
from leakbench.errors import LeakBenchError, PluginError, one_line
from leakbench.runtime.process import thread_pools


@contextmanager
def fenced(plugin_name: str, seed: int) -> Iterator[None]:
    """A call of the plugin ``plugin_name``, whose draws from global generators start from ``seed``.

    Afterwards the process's global state is what it was: torch's grad mode, default dtype and device, threads,
    backends' flags, the generators of torch, numpy and random, the environment and the working folder. What is no
    ordinary exception (SystemExit, another BaseException) becomes a PluginError; so does KeyboardInterrupt where the
    user's own is not delivered (a worker process ignores SIGINT).
    """
    state = [(put, read()) for read, put in (*_STATE.values(), *_GENERATORS)]
    folder, variables = _folder(), dict(os.environ)
    flushes = _flushes_denormals()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        # the pools behind numpy and scikit-learn: left at what the plugin set, they would be others' too
        with thread_pools().limit(limits=None), warnings.catch_warnings():
            yield
    except (Exception, GeneratorExit):
        raise
    except KeyboardInterrupt:
        if _interruptible():
            raise
        raise PluginError(f"{plugin_name} raised KeyboardInterrupt") from None
    except BaseException as error:
        raise PluginError(f"{plugin_name} raised {type(error).__name__}: {one_line(error)}") from error
    finally:
        for put, before in state:
            put(before)
        torch.set_flush_denormal(flushes)
        if os.environ != variables:
            os.environ.clear()
            os.environ.update(variables)
        if folder is not None:
            os.chdir(folder)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What a call inside, which the fence does not stand around, leaves changed of what :func:`fenced` puts back.

    The names are in the list afterwards. Generators are none of them: draws from the global ones are allowed, as the
    fence seeds them. Nor are variables of OpenMP: libraries set them when they are imported.
    """

    def read() -> dict[str, Any]:
        state = {name: look() for name, (look, _) in _STATE.items()}
        return {**state, "working folder": _folder(), "denormals": _flushes_denormals()}

    before, variables, changed = read(), dict(os.environ), list[str]()
    yield changed
    after = read()
    changed += [name for name in before if before[name] != after[name]]
    differ = {name for name, _ in variables.items() ^ os.environ.items() if not name.startswith("KMP_")}
    changed += [f"environment ({', '.join(sorted(differ))})"] if differ else []


def unless_built_in(kind: registry.Kind, target: str) -> AbstractContextManager[None]:
    """The fence, but not for our own plugins, where it costs a plan of many cells seconds."""
    return nullcontext() if registry.is_built_in(kind, target) else fenced(target, 0)


def raised_at(error: BaseException, plugin: type[Any]) -> str:
    """The last line of the plugin's own file that an error came through, in brackets; empty where there is none.

    Nor is there one of a stand-in for a plugin of another process: its lines, in our file, say nothing of the plugin.
    """
    if isinstance(error, LeakBenchError) and error.where:
        return error.where
    if plugin.__module__.startswith("leakbench.runtime.isolation."):
        return ""
    file = getattr(sys.modules.get(plugin.__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""


def _interruptible() -> bool:
    return signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a text that chdir takes back as it is
    except OSError:
        return None  # removed under our feet


def _flushes_denormals() -> bool:
    """Whether numbers below 1e-38 count as 0; torch only has a setter."""
    return float(torch.tensor(1e-38, device="cpu") * 0.01) == 0.0


def _default_device() -> torch.device:
    return torch.empty(0).device  # PyTorch 2.6 has no answer of its own once the device was set to None


def _set_default_device(device: torch.device) -> None:
    if _default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)  # None: no mode on top of every call


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _cuda_rng() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


_CUDNN = ("enabled", "benchmark", "deterministic", "allow_tf32")
_STATE: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (_default_device, _set_default_device),
    "number of threads": (torch.get_num_threads, _set_threads),
    "deterministic mode": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "anomaly mode": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    **{f"backends.cudnn.{name}": _attribute(torch.backends.cudnn, name) for name in _CUDNN},
    "backends.mkldnn.enabled": _attribute(torch.backends.mkldnn, "enabled"),
    "backends.cuda.matmul.allow_tf32": _attribute(torch.backends.cuda.matmul, "allow_tf32"),
    **{
        f"autocast on {device}": (
            partial(torch.is_autocast_enabled, device),
            partial(torch.set_autocast_enabled, device),
        )
        for device in ("cpu", "cuda")
    },
    **{
        f"autocast's dtype on {device}": (
            partial(torch.get_autocast_dtype, device),
            partial(torch.set_autocast_dtype, device),
        )
        for device in ("cpu", "cuda")
    },
    "numpy's errors": (np.geterr, lambda before: np.seterr(**before)),
}
"""what it is, as people read it -> (read, put back)"""
_GENERATORS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_rng_state, torch.set_rng_state),
    (_cuda_rng, lambda states: torch.cuda.set_rng_state_all(states) if states else None),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)
"""(read, put back)"""

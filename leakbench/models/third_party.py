"""Models that others wrote: their function called with care, and what it returns checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from leakbench.errors import LeakBenchError, PluginError, described

Shape = tuple[int, int, int]
Build = Callable[[Shape, int, torch.Generator], nn.Module]

_OTHER_SEED = 0xB1E55ED
"""of a second network: nobody's first one starts from it"""


def built(who: str, build: Build, image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """The untrained body that ``build`` makes. Draws from global generators follow from ``generator``, too.

    Raises PluginError, one line that names ``who``, where it is no nn.Module, doesn't answer images [B, C, H, W] of
    ``image_shape`` with finite logits [B, classes], or has parts of other types than float32, as quantised layers.
    """
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    with seeded(seed):
        try:
            body: Any = build(image_shape, classes, generator)
            if not isinstance(body, nn.Module):
                _refuse(who, f"it must return an nn.Module, and returns {_a(body)}")
            training = body.training
            with torch.no_grad():
                logits: Any = body.eval()(torch.zeros(2, *image_shape))
            body.train(training)
        except LeakBenchError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"the model {who!r} can't be built for images {list(image_shape)} of {classes} classes: "
                f"{described(error)}"
            ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        answer = f"{list(logits.shape)}" if isinstance(logits, torch.Tensor) else _a(logits)
        _refuse(who, f"two images {list(image_shape)} must give logits [2, {classes}], and give {answer}")
    if not torch.isfinite(logits).all():
        _refuse(who, "its network answers NaN or infinity")
    for name, value in body.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.is_quantized:  # torch's quantised layers keep packed numbers
            _refuse(who, f"its {name!r} is no plain tensor (write layers that torch quantised as float32 layers)")
        if value.is_floating_point() and value.dtype != torch.float32:
            _refuse(who, f"its {name!r} must be float32, and is {value.dtype}")
    if not any(True for _ in body.parameters()):
        _refuse(who, "its network has no parameters: there is nothing to train")
    return body


def check_rebuilds(who: str, build: Build, body: nn.Module, image_shape: Shape, classes: int) -> None:
    """Raises PluginError where a network is more than its parameters and buffers.

    These are all that is kept of it: a second one, built from other random numbers, must answer as the first does when
    it is given the first one's.
    """
    generator = torch.Generator().manual_seed(_OTHER_SEED)
    twin = built(who, build, image_shape, classes, generator)
    images = torch.rand(4, *image_shape, generator=generator)
    training = body.training
    with seeded(0), torch.no_grad():
        try:
            twin.load_state_dict(body.state_dict())
            same = torch.allclose(body.eval()(images), twin.eval()(images), rtol=1e-3, atol=1e-5)
        except Exception as error:
            _refuse(who, f"it can't be built a second time from what is kept of it: {described(error)}")
    body.train(training)
    if not same:
        _refuse(who, "its answers must follow from parameters and buffers alone: register_buffer keeps other tensors")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global generators start from ``seed`` and are afterwards what they were."""
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])


def _refuse(who: str, problem: str) -> NoReturn:
    raise PluginError(f"the model {who!r} can't be used: {problem}")


def _a(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "nothing"

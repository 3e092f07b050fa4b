"""Networks that are somebody's module: asked and differentiated, and never looked into.

    module: {"forward": "step", "timesteps": 16, ...} of mine.py:build

is such a model: what calls ``build()`` of that file, and how the module that it returns is asked. What neurons do,
which layers there are, and what a spike is: nobody knows but the module.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from leakbench.errors import PluginError, UsageError, described, printable
from leakbench.models.third_party import Build, Shape, seeded
from leakbench.models.untrusted import MOST_STEPS
from leakbench.registry import MODULE, before_file
from leakbench.snn.encoders import ENCODERS, EncoderName
from leakbench.snn.noise import image_keys

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Asking(BaseModel):
    """How a module is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forward: Literal["images", "spikes", "step"]
    """what it takes: images [B, C, H, W]; what enters at all T steps, [T, B, C, H, W]; or at one step, T times"""
    timesteps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 1
    encoder: EncoderName = "poisson"
    """of spikes and steps"""
    range: tuple[Finite, Finite] = (0.0, 1.0)
    """what [0, 1] is mapped to"""
    mean: tuple[Finite, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    over: Literal["sum", "mean", "last"] = "sum"
    """of what it puts out at each step, [T, B, classes]; logits [B, classes] are taken as they are"""
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def model_name(self, file: str) -> str:
        """Of the module that ``file``, path/to/file.py:function, builds."""
        said = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
        return f"{MODULE}{said} of {file}"

    @classmethod
    def parse(cls, name: str) -> Asking:
        """What such a model's name says. UsageError where it says nothing of the kind."""
        try:
            return cls.model_validate_json(before_file(name).removeprefix(MODULE).removesuffix(" of "))
        except (ValidationError, RecursionError):
            raise UsageError(f"{printable(name)[:100]!r} does not say how a module is asked") from None


class Asked(nn.Module):
    """Images [B, C, H, W] in the input range -> logits [B, classes]; what is drawn follows from a seed.

    Each call begins with the module as it was built, so no state outlasts it.
    """

    def __init__(self, module: nn.Module, asking: Asking) -> None:
        super().__init__()
        self.module = module
        self.asking = asking

    def forward(self, x: Tensor, seed: int = 0) -> Tensor:
        said = self.asking
        # its states are the copy's; gradients reach the parameters, which are shared
        module = copy.deepcopy(self.module, {id(one): one for one in self.module.parameters()})
        with seeded(seed % (1 << 32)):
            if said.forward == "images":
                return self._logits(module(self._normalised(x)))
            keys = image_keys(seed, 0, len(x), x.device)
            encoded = self._normalised(ENCODERS[said.encoder](x, keys, 0, said.timesteps))
            if said.forward == "spikes":
                return self._logits(module(encoded))
            return self._logits(torch.stack([_first(module(one)) for one in encoded.unbind(0)]))

    def _normalised(self, x: Tensor) -> Tensor:
        for numbers, apply in ((self.asking.mean, torch.sub), (self.asking.std, torch.div)):
            if numbers is not None:
                x = apply(x, torch.tensor(numbers, dtype=x.dtype, device=x.device).view(-1, 1, 1))
        return x

    def _logits(self, answer: Any) -> Tensor:
        out = _first(answer)
        if out.dim() == 3:  # of each step
            out = {"sum": out.sum, "mean": out.mean}[self.asking.over](0) if self.asking.over != "last" else out[-1]
        return self.asking.scale * out


def _first(answer: Any) -> Tensor:
    """Of what a module returns: itself, or spikes before states."""
    if isinstance(answer, tuple | list) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor):
        raise PluginError(f"it must return a tensor, or one followed by states, and returns a {type(answer).__name__}")
    return answer


def adapted(name: str, build: Any) -> Build:
    """What builds the network of a model ``module: ... of FILE``, whose function is ``build``."""
    asking = Asking.parse(name)

    def made(_image_shape: Shape, _classes: int, _generator: torch.Generator) -> nn.Module:
        return Asked(copy.deepcopy(module_of(build)), asking)

    return made


@lru_cache(maxsize=4)
def module_of(build: Any) -> nn.Module:
    """The module that a user's function ``build`` returns, in eval mode and float32, on the CPU; built once a process,
    or anew after ``module_of.cache_clear()``, as the weights that it reads may have been written since.

    PluginError, one line, where it raises, returns something else, or what can't be copied or has weights that are no
    numbers.
    """
    try:
        with seeded(0):
            module = build()
        if not isinstance(module, nn.Module):
            raise PluginError(f"it must return a torch.nn.Module, and returned {type(module).__name__}")
        copied = copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)
        for name, weights in copied.named_parameters():
            if not nn.parameter.is_lazy(weights) and not weights.isfinite().all():
                raise PluginError(f"its weights {printable(name)!r} hold NaN or infinity")
        return copied
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(printable(described(error))) from error

"""The models by name, and what says which one a network is of. No torch here: names are listed without it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leakbench import registry

_WORD = re.compile(r"[a-z]+")
_CODE = re.compile(r"@[0-9a-f]{64}")
_CODE_LENGTH = 65

GRAPH = "graph:"
"""how a model begins that is a text of :mod:`leakbench.models.graph`"""


@dataclass(frozen=True)
class Architecture:
    """What builds a network's body again; its text is the network's ``arch``.

    As in "vgg4", "vgg4+bias", "mine.py:build@SHA256". A network's has no folder in it: moved files build the same.
    """

    model: str
    """a registered name, a graph's text, or file.py:function; with folders before it where a user says which file"""
    code: str = ""
    """sha256 of a third party's source"""
    rewrites: tuple[str, ...] = ()
    """what the body was rewritten to, see :mod:`leakbench.snn.folding`"""

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Of a network's ``arch``, or of what was given as --model. Any text is one; whether it can be built is seen
        when it is."""
        # from the end, in a time that grows with the text's length alone: it may be a stranger's
        model, *words = text.split("+")
        rewrites: list[str] = []
        while words and _WORD.fullmatch(words[-1]) and (model or len(words) > 1):
            rewrites.append(words.pop())
        model = "+".join((model, *words))
        code = model[-_CODE_LENGTH:]
        if len(model) > _CODE_LENGTH and _CODE.fullmatch(code):
            return cls(model[:-_CODE_LENGTH], code[1:], tuple(reversed(rewrites)))
        return cls(model, "", tuple(reversed(rewrites)))

    def __str__(self) -> str:
        return "+".join((f"{self.model}@{self.code}" if self.code else self.model, *self.rewrites))

    @property
    def label(self) -> str:
        """Without folders and hash, for people; of a graph a name that its text gives it."""
        digest = hashlib.sha256(self.model.encode()).hexdigest()
        name = registry.in_file(registry.label(self.model))
        if self.model.startswith(GRAPH):
            name = f"graph-{digest[:8]}"
        return "+".join((name, *self.rewrites))


DEPTHS: Mapping[str, int] = {
    "vgg4": 3, "vgg5": 4, "vgg9": 8, "vgg16": 14, "resnet8": 7, "resnet20": 19, "resnet18": 17,
}  # fmt: skip
"""layers of spiking neurons in a row, of the built-in families; "bn" and "max" behind a name change none"""


def model_depth(target: str) -> int | None:
    """Layers of spiking neurons in a row; None of a third party's network, which is not built for an answer."""
    name = Architecture.parse(target).model
    return DEPTHS.get(name.removesuffix("bn").removesuffix("max"))


def has_batch_norm(target: str) -> bool:
    """Whether a built-in model has; of a third party's nothing is known."""
    name = Architecture.parse(target).model
    return name.startswith("resnet") or name.endswith("bn")


def model_names() -> tuple[str, ...]:
    """The models that can be built by name."""
    return tuple(registry.names("model"))


def pinned_model(target: str) -> str:
    """A model as a plan has it: a third party's with the hash of its source, so that an edited one is not taken for it.

    ``target`` is a registered name or ``path/to/file.py:function``; see :func:`leakbench.registry.load` for errors.
    """
    registry.load("model", target)
    return str(Architecture(target, registry.source("model", target).digest))


def model_label(target: str) -> str:
    """How a model is named in records and reports: without the folders of its file."""
    return Architecture.parse(target).label


def model_identity(target: str) -> dict[str, Any]:
    """What an artifact's key says of a model: its name, and of a third party's also its source and where it is from."""
    model = Architecture.parse(target).model
    source = registry.source("model", model)
    identity = {"model": registry.label(model)}
    return identity | {"code": source.digest, "origin": source.origin} if source.digest else identity

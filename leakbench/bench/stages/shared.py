"""What plugins share: built once under its own key, whoever asks first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

from leakbench.contracts import Context, SharedBuild
from leakbench.runtime.fence import fenced
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Content
from leakbench.runtime.workspace import Stage, Workspace

C = TypeVar("C", bound=Context)


def as_is(_context: Context) -> None:
    """A build that needs nothing but its context."""


@dataclass
class SharedArtifacts(Generic[C]):
    """The ``shared_store`` of a plugin's context."""

    workspace: Workspace
    inputs: Mapping[str, Any]
    """what all of it depends on: part of the keys"""
    identity: Mapping[str, Any]
    """what the seeds follow from, besides the parameters"""
    context: type[C]
    equip: Callable[[C], None] = as_is
    """gives a build's context what it needs"""
    keys: dict[str, str] = field(default_factory=dict)
    """name -> key of everything that was asked for"""

    def __call__(self, name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        seed = seed_of(f"shared-{name}", **self.identity, params=dict(params))

        def equipped(context: C) -> Content:
            self.equip(context)
            with fenced(f"shared {name}", seed):  # its global draws are its own, and not of whoever asks first
                return build(context), {"params": dict(params)}

        artifact = self.workspace.make(
            Stage(f"shared-{name}", version),
            seed,
            {**self.inputs, "params": dict(params)},
            equipped,
            context=self.context,
        )
        self.keys[name] = artifact.key
        # copies: what one plugin does to them, no other sees
        return {key: tensor.clone() for key, tensor in artifact.tensors.items()}

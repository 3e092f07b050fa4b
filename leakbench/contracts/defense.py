"""Defences."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import nn

from leakbench.contracts.context import DefenseContext, Findings
from leakbench.contracts.data import TrainingData
from leakbench.contracts.networks import ImageClassifier
from leakbench.contracts.params import Params
from leakbench.contracts.plugin import P, Plugin
from leakbench.errors import NumericalError, PluginError

if TYPE_CHECKING:
    from leakbench.snn import SpikingNetwork


Quantization = Literal["none", "int8"]


class DeploymentParams(Params):
    """What a run does to the network that a defence returns, whichever defence it is."""

    quantize: Quantization = Field(
        "none", description="weights of the deployed network: int8, one scale for each output channel; or as they are"
    )


class Defense(Plugin[P]):
    """Turns a trained ANN into the thing that is deployed."""

    kind = "defense"
    KindParams = DeploymentParams
    spiking: ClassVar[bool] = True
    """False where the deployed network has no time steps"""
    anytime: bool = False
    """whether the network is the same whatever T is, so that one simulation to the longest T gives all shorter ones;
    a property, where it depends on parameters"""
    takes_timesteps: bool = True
    """whether its network's T is the grid's; where it is one of its own, a grid of several T has one row of it; a
    property, where it depends on parameters"""

    @final
    def __call__(
        self, ann: ImageClassifier, data: TrainingData, context: DefenseContext
    ) -> SpikingNetwork | ImageClassifier:
        """Runs :meth:`protect` and checks what it returns; the ANN it is handed is left as it was."""
        ann.eval().requires_grad_(False)
        context.findings = Findings()
        with _unchanged(ann, self.name):
            network = self.protect(ann, data, context)
        if not isinstance(network, nn.Module) or not hasattr(network, "image_shape"):
            raise PluginError(
                f"{self.name}.protect must return a SpikingNetwork or an ImageClassifier, got {type(network).__name__}"
            )
        if network.classes != ann.classes or network.image_shape != ann.image_shape:
            raise PluginError(f"{self.name}.protect returned a network for other images or classes than the ANN's")
        for key, tensor in network.state_dict().items():
            if key.endswith(".threshold") and (tensor == torch.inf).all():
                raise PluginError(
                    f"{self.name}: the neurons {key.removesuffix('.threshold')!r} have no threshold yet: set it, as "
                    "leakbench.snn.balance_thresholds does"
                )
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise PluginError(
                    f"{self.name}: the protected network must be float32, and its {key!r} is {tensor.dtype}: return "
                    "network.float()"
                )
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NumericalError(f"{self.name}: the protected network holds NaN or infinity in {key!r}")
        context.findings.check(self.name)
        return network.eval().requires_grad_(False)

    @abstractmethod
    def protect(
        self, ann: ImageClassifier, data: TrainingData, context: DefenseContext
    ) -> SpikingNetwork | ImageClassifier:
        """All that an author writes. Copy what you change: ``ann`` belongs to the framework."""


class _unchanged:  # noqa: N801 - reads as a statement
    """Guards the ANN against a defence that writes to it: every later cell would build on the damage."""

    def __init__(self, ann: ImageClassifier, name: str) -> None:
        self._ann, self._name = ann, name

    def __enter__(self) -> None:
        # copies: writes through .data or of another layer leave no trace in version counters
        self._layers = repr(self._ann)
        self._before = {key: value.clone() for key, value in self._ann.state_dict().items()}

    def __exit__(self, kind: object, *_: object) -> None:
        after = self._ann.state_dict()
        same = (
            self._layers == repr(self._ann)
            and after.keys() == self._before.keys()
            and all(
                after[key].shape == value.shape and torch.equal(after[key].nan_to_num(), value.nan_to_num())
                for key, value in self._before.items()
            )
        )
        if kind is None and not same:
            raise PluginError(f"{self._name}.protect changed the ANN in place: work on a copy (copy.deepcopy)")

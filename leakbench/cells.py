"""The cells of a grid: types of one union, distinguished by ``type``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leakbench import registry
from leakbench.built_ins import GIVEN
from leakbench.contracts import Precision, Quantization
from leakbench.data import dataset_label
from leakbench.models import model_label

Preset = Literal["quick", "standard", "paper-cpu", "paper"]
"""from the fastest on"""


class Member(BaseModel):
    """An attack that an ensemble runs: part of what the ensemble computes."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    params: Mapping[str, Any]


class Variant(BaseModel):
    """A plugin with its parameters: one row or column of the grid."""

    model_config = ConfigDict(frozen=True)

    target: str = Field(description="registered name or path/to/file.py:Class")
    name: str
    label: str = Field(description="the name, with [param=value] of what was set to another value or is varied")
    version: int
    params: Mapping[str, Any]
    changed: Mapping[str, Any] = Field(
        {}, description="parameters that are not the defaults: what seeds follow from, so that a new one changes none"
    )
    code: str = Field("", description="sha256 of a third party's source: whoever edits it sees what new code makes")
    origin: str = Field("", description="where a third party's class is from: file, registered, or its distribution")
    members: tuple[Member, ...] = Field((), description="the attacks that an ensemble runs itself")
    quantize: Quantization = Field("none", description="what the weights of a defence's network become")

    @property
    def plugin(self) -> str:
        """Its name to seeds and keys: a network that is given is the same whatever its file is called."""
        return next((kind.rstrip(":") for kind in GIVEN if self.target.startswith(kind)), self.name)

    @property
    def all_params(self) -> dict[str, Any]:
        """Its own parameters, and what the run does besides, where that is anything: as keys and records have them."""
        return {**self.params, **({"quantize": self.quantize} if self.quantize != "none" else {})}

    @property
    def identity(self) -> dict[str, Any]:
        """What a key says of it: what it runs itself, and of a third party's plugin where it is from and its source."""
        identity: dict[str, Any] = {"plugin": self.plugin, "version": self.version, "params": self.all_params}
        if self.members:
            identity["members"] = [member.model_dump(mode="json") for member in self.members]
        if not self.code:
            return identity
        # one file may hold several classes of one name: a variant of an attack inherits it
        return {**identity, **self.source, "class": self.target.rpartition(":")[2]}

    @property
    def source(self) -> dict[str, str]:
        """Of a third party's plugin its source and where it is from: part of the key of whatever it makes."""
        return {"code": self.code, "origin": self.origin} if self.code else {}


class BaseCell(BaseModel):
    """What all cells have: the data, the network, and how much of everything."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    model: str
    seed: int
    preset: Preset
    images_per_class: int
    classes: int | None = Field(None, description="classes that attacks draw, picked at random; None: all")
    test_images: int | None
    candidates: int = Field(1000, description="images of either side that membership attacks are asked about, at most")
    checkpoint: str | None
    precision: Precision = Field("float32", description="of the networks' convolutions, trained and deployed")
    metrics: tuple[Variant, ...] = Field((), description="what is measured besides the usual, where anything is")
    control: bool = False

    def images(self, classes: int) -> int:
        """How many images an attack draws, on data of so many classes."""
        return self.images_per_class * min(classes if self.classes is None else self.classes, classes)

    @property
    def dataset_label(self) -> str:
        """As people and records name the data set."""
        return dataset_label(self.dataset)

    @property
    def model_label(self) -> str:
        """As people and records name the model."""
        return model_label(self.model)

    @property
    def network(self) -> tuple[str, str, int]:
        """Cells of one network have this in common."""
        return self.dataset, self.model, self.seed

    @property
    def replicate(self) -> int:
        """What the random numbers of everything but the ANN start from."""
        return self.seed

    @property
    def variants(self) -> list[tuple[registry.Kind, Variant]]:
        """The plugins that take part in it, with their kinds."""
        return [("metric", metric) for metric in self.metrics]

    @property
    def title(self) -> str:
        """One line for people."""
        raise NotImplementedError


class AnchorCell(BaseCell):
    """Something that calibrates a kind of leak's metrics and needs no network, as noise and real images do."""

    type: Literal["anchor"] = "anchor"
    leakage: str
    anchor: str
    fresh: bool = Field(False, description="an independent draw, which checks the scale that the others make")

    @property
    def title(self) -> str:
        return f"{self.dataset_label} seed {self.seed}: {'fresh ' if self.fresh else ''}{self.anchor} images"


class PreparationCell(BaseCell):
    """What a kind of leak prepares of a data set: no cell of the grid, what its cells build on."""

    type: Literal["preparation"] = "preparation"
    leakage: str
    part: str = Field("", description="one of the kind's parts; empty: what is left after these")

    @property
    def title(self) -> str:
        return f"{self.dataset_label} evaluation models{self.part and f': {self.part}'}"


class UtilityCell(BaseCell):
    """A defence alone: the accuracy and the cost of the network that it deploys."""

    type: Literal["utility"] = "utility"
    defense: Variant
    timesteps: int | None = Field(None, description="T; None where nothing spikes")
    all_timesteps: tuple[int, ...] = Field(
        (), description="all T of the grid, where one network and one simulation serve them all"
    )

    @property
    def row(self) -> tuple[str, str, int, str]:
        """Cells of one deployed network have this in common."""
        return *self.network, self.defense.label

    @property
    def variants(self) -> list[tuple[registry.Kind, Variant]]:
        return [("defense", self.defense), *super().variants]

    @property
    def title(self) -> str:
        return f"{self.dataset_label} {self.model_label} seed {self.seed}: {self.defense.label}"


class AttackCell(UtilityCell):
    """An attack on a defence."""

    type: Literal["attack"] = "attack"  # type: ignore[assignment]
    attack: Variant
    leakage: str = Field(description="the kind of leak that the attack is after")
    public: str = Field("", description="source of the public images; empty where the attack uses none")
    references: int = Field(0, description="networks made as the victim was that the attack is handed")

    @property
    def variants(self) -> list[tuple[registry.Kind, Variant]]:
        return [("attack", self.attack), *super().variants]

    @property
    def title(self) -> str:
        return f"{super().title} x {self.attack.label}"


_REFERENCE_TESTED = 500
"""test images at most that a reference's accuracy is measured on: enough to see that it failed"""


class ReferenceCell(UtilityCell):
    """A reference network of a row: no cell of the grid, what attacks on it share."""

    type: Literal["reference"] = "reference"  # type: ignore[assignment]
    leakage: str = Field(description="the kind of leak of the attacks that use it")
    number: int = Field(ge=0, description="of the reference")

    @classmethod
    def beside(cls, cell: AttackCell, number: int) -> ReferenceCell:
        """A reference of the row of an attack's cell."""
        shared = {name: getattr(cell, name) for name in UtilityCell.model_fields if name not in ("type", "metrics")}
        tested = min(cell.test_images or _REFERENCE_TESTED, _REFERENCE_TESTED)
        return cls(**{**shared, "test_images": tested}, leakage=cell.leakage, number=number)

    @property
    def title(self) -> str:
        return f"{super().title} reference {self.number}"


class CheckCell(AttackCell):
    """An attack at half its effort: no cell of the grid, a check of the attack with the label ``checks``."""

    type: Literal["check"] = "check"  # type: ignore[assignment]
    checks: str


class NullCell(CheckCell):
    """An attack on one of many networks that know no class: what classes are named against.

    It has the shape of the ANN of ``seed`` and is shared by all defences of the grid.
    """

    type: Literal["null"] = "null"  # type: ignore[assignment]
    number: int = Field(ge=0, description="of the network")

    @property
    def replicate(self) -> int:
        return self.number

    @property
    def row(self) -> tuple[str, str, int, str]:
        return *self.network, f"{self.defense.label} {self.number}"

    @property
    def title(self) -> str:
        return f"{self.dataset_label} {self.model_label}: {self.row[-1]} x {self.attack.label}"


Cell = Annotated[AnchorCell | UtilityCell | AttackCell | CheckCell | NullCell, Field(discriminator="type")]
"""what a grid is made of, and a record lists"""
JobCell = Cell | PreparationCell | ReferenceCell
"""what a job computes: a cell of the grid, or what several of them need"""

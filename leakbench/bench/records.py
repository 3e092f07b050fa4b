"""What a run writes: versioned JSON records. Tables (results.csv) and the report derive from these alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.motion import LayerMotion

SCHEMA = 1
Status = Literal["ok", "failed", "not-applicable"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Record):
    """One measured value: metric name, value, 95 % interval (None where none is defined), observations."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1


class Picture(_Record):
    """One image of a cell: a PNG beside the report."""

    path: str = Field(description="relative to the run's folder, below images/")
    target: int = Field(description="index of the class that it was made for (or belongs to)")


class ClassScore(_Record):
    """How the judge saw the images of one class."""

    target: int
    hits: int = Field(description="images named as this class")
    n: int


class CellRecord(_Record):
    """One cell of the grid: a defence alone (attack empty) or an attack on a defence, or an anchor row.

    Anchor rows have an empty ``defense`` and ``attack`` "noise" or "real": images that calibrate the metrics.
    """

    dataset: str
    model: str
    defense: str = Field(description="label: the plugin's name, with [param=value] where a grid varies it")
    attack: str = ""
    seed: int
    status: Status = "ok"
    reason: str = Field("", description="why the status is not ok, one line")
    traceback: str = ""
    defense_name: str = ""
    defense_params: dict[str, Any] = {}
    attack_params: dict[str, Any] = {}
    timesteps: int | None = Field(None, description="None where nothing spikes")
    control: bool = Field(False, description="added by LeakBench to calibrate the grid")
    values: list[Value] = []
    motion: list[LayerMotion] = []
    energy: list[LayerOperations] = []
    classes: list[ClassScore] = Field([], description="judge accuracy taken apart by class, in the classes' order")
    pictures: list[Picture] = []
    artifacts: dict[str, str] = Field({}, description="role -> key in the store")
    warnings: list[str] = []


class SyntheticSet(_Record):
    """A set of synthetic images that data-free defences were built on, shown in the report."""

    key: str
    dataset: str
    model: str
    seed: int
    params: dict[str, Any]
    count: int
    teacher_agreement: float = Field(description="share whose ANN prediction is argmax of the soft label")
    pictures: list[Picture]


class PluginInfo(_Record):
    """What the report says of a plugin that took part."""

    kind: Literal["attack", "defense"]
    name: str
    version: int
    summary: str
    cites: str
    needs: str = ""
    origin: str = "built-in"


class DatasetInfo(_Record):
    """What the report says of a data set that took part."""

    name: str
    classes: list[str]
    train_images: int
    test_images: int
    channels: int
    height: int
    width: int
    source: str
    fingerprint: str


class JudgeInfo(_Record):
    """An independent classifier that scored the reconstructions."""

    name: str
    dataset: str
    seed: int
    accuracy: Value


class RunRecord(_Record):
    """Everything that the report needs, as written to results.json."""

    schema_version: int = SCHEMA
    leakbench: str
    created: str = Field(description="ISO 8601, UTC")
    seconds: float
    command: str
    complete: bool = Field(description="False when the run was interrupted before its last cell")
    grid: dict[str, Any]
    environment: dict[str, str]
    datasets: list[DatasetInfo]
    judges: list[JudgeInfo]
    plugins: list[PluginInfo]
    synthetic: list[SyntheticSet]
    cells: list[CellRecord]

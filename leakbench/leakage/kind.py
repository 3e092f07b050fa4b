"""What a kind of leak is: what its attacks hand back, how that is measured, and what follows from it.

The bench knows no kind in particular. Of an attack's cell it asks the kind for a task, keeps what the attack made of
it, has the kind measure it, and in the end conclude from all cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from leakbench.cells import AnchorCell, AttackCell, BaseCell, PreparationCell, ReferenceCell, UtilityCell
from leakbench.contracts import Context, Cost, ImageClassifier, Victim
from leakbench.leakage.scaled_scores import ComparedScores, ScaledScores
from leakbench.leakage.seed_group import Declarations
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Measurement, Metric
from leakbench.records import (
    AttackRow,
    BudgetPoint,
    CellRecord,
    ClassScore,
    Index,
    JudgeInfo,
    Picture,
    RocPoint,
    Scale,
    Value,
    Verdict,
    Votes,
    class_score,
    value,
)
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Stage, Workspace
from leakbench.snn import SpikingNetwork


@dataclass
class Measured:
    """What was measured in a cell."""

    values: list[Value] = field(default_factory=list)
    classes: list[ClassScore] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """why a metric has no value, one line each"""
    votes: Votes | None = None
    """which classes an attack's images show, of an attack on classes"""
    budget: list[BudgetPoint] = field(default_factory=list)
    """what it had on the way, of an attack on classes"""
    roc: list[RocPoint] = field(default_factory=list)
    """members found at each false positive rate, of an attack on members"""
    question: str = ""
    """of an attack on members: whose members they are, those of the training or of the conversion"""

    def add(self, metric: str, measurement: Measurement) -> None:
        """A metric's value, and its values of each class. NumericalError where one is no number."""
        self.values.append(value(metric, measurement.estimate))
        self.classes += [class_score(metric, target, one) for target, one in measurement.classes.items()]

    def refuse(self, metric: str, reason: str) -> None:
        """A metric has no value, and why."""
        self.refused.append(f"{metric}: not measured: {reason}")

    def extend(self, other: Measured) -> None:
        """Take in what else was measured of the same cell."""
        self.values += other.values
        self.classes += other.classes
        self.refused += other.refused


@dataclass(frozen=True)
class Deployed:
    """A deployed network and where it is from."""

    network: ImageClassifier | SpikingNetwork
    artifact: Artifact
    identity: str
    """what keys say of it: of a network that serves every T also this T"""
    read_images: Tensor
    """bool [training images]: those that the defence asked for"""
    copy: Callable[[], ImageClassifier | SpikingNetwork]
    """another one, for an attack to do with as it likes"""
    shared: Mapping[str, str] = field(default_factory=dict)
    """name -> key of what the defence built it on besides the ANN, as a synthetic set"""


@dataclass(frozen=True)
class OtherTraining:
    """What a network is trained on in the place of the training images."""

    images: Tensor
    """uint8 [N, C, H, W]"""
    labels: Tensor
    """int64 [N]"""


@dataclass(frozen=True)
class ReferenceTraining(OtherTraining):
    """What a reference network is trained on in the place of the training images."""

    members: Tensor
    """bool [candidates]: those that are among them"""


class AttackOutcome(Protocol):
    """What an attack hands back, whatever kind of leak it is after."""

    @property
    def cost(self) -> Cost: ...

    @property
    def findings(self) -> dict[str, float]: ...


class AttackTask(Protocol):
    """What the attacks of a kind are asked for in one cell."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What the result depends on besides attack and victim: part of the key."""
        ...

    def run(self, attack: Any, victim: Victim, context: Any) -> AttackOutcome:
        """Call the attack, which checks what it returns; ``context`` has its references already."""
        ...

    def to_tensors(self, outcome: Any, context: Context) -> dict[str, Tensor]:
        """What is kept of the outcome, and what the victim itself answers to it."""
        ...


@dataclass(frozen=True)
class Evidence:
    """Everything that is derived from a run's cells."""

    scales: list[Scale] = field(default_factory=list)
    rows: list[AttackRow] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def extended(self, other: Evidence) -> Evidence:
        """With what follows of another kind of leak."""
        return Evidence(self.scales + other.scales, self.rows + other.rows, self.verdicts + other.verdicts)


class Area(ComparedScores, Protocol):
    """Under a leakage index over the attacker's cost."""

    @property
    def value(self) -> Value | None:
        """The mean with its interval; None where there is no scale."""
        ...


class Scored(Protocol):
    """The attacks on one data set and model, as defences are compared by them."""

    def scores(self, defense: str, attack: str) -> ScaledScores:
        """What an attack got out of a defence, by seed and class."""
        ...

    def area(self, attacks: Mapping[str, ScaledScores]) -> Area | None:
        """Under the index over the attacker's cost, of the worst case over ``attacks``; None where none has a scale."""
        ...


@dataclass(frozen=True)
class GateRule:
    """A gate, as a report explains it."""

    name: str
    text: str
    """what must hold, in one sentence"""
    of_row: bool = True
    """whether attacks pass or fail it, one by one; else it is a rule of the verdict"""
    voids_leaks: bool = False
    """whether a row that fails it is invalid even where it leaks"""
    control: str = ""
    """the control that tells, where one does alone"""


class LeakageKind(ABC):
    """A kind of leak."""

    name: ClassVar[str]
    """as the base class of its attacks has it"""
    title: ClassVar[str]
    """what leaks, in a word or two"""
    by_default: ClassVar[bool] = False
    """whether a grid that attacks nothing has its controls"""
    comparable: ClassVar[bool] = False
    """whether defences are ranked by it"""
    headline: ClassVar[str]
    """the metric that carries the verdict"""
    chance: ClassVar[str]
    """what the headline is for an attacker who knows nothing, in words"""
    controls: ClassVar[Mapping[str, str]]
    """defences that calibrate its attacks, added to a grid and attacked along with those that were asked for -> what is
    unknown of the attacks without it; empty where another control says as much"""
    nulls: ClassVar[tuple[str, ...]] = ()
    """defences whose networks know nothing: its attacks are compared with what they get out of many such networks,
    of these defences in turns"""
    nulls_from: ClassVar[int] = 0
    """number of seeds from which on that comparison can tell anything"""
    halves_effort: ClassVar[bool] = False
    """whether its attacks are run with half their effort, too, which a gate compares with"""
    anchors: ClassVar[tuple[str, ...]] = ()
    """what calibrates its metrics and needs no network"""
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """what of its preparation workers can make beside each other -> the parts that it builds on, which stand before"""
    stages: ClassVar[tuple[Stage, ...]] = ()
    """the steps by which it measures"""
    gates: ClassVar[tuple[GateRule, ...]]
    sections: ClassVar[tuple[str, ...]]
    """of the report, those that are about nothing else: their ids"""

    def check(self, workspace: Workspace, datasets: Iterable[str]) -> None:  # noqa: B027 - may have nothing to check
        """Raises UsageError where something that its cells of these data sets need is wrong with the whole run."""

    def metrics_of_files(self, workspace: Workspace) -> Sequence[type[Metric[Any]]]:
        """Metrics beside those in the registry that files of the user's bring along and name."""
        return ()

    def prepare(self, workspace: Workspace, cell: PreparationCell) -> None:  # noqa: B027 - may have nothing to prepare
        """What all its cells of a data set build on, as evaluation models: one of its ``parts``, or all (empty)."""

    def preparation(
        self, part: str, shape: tuple[int, int, int], classes: int, training: int, test: int, flips: bool
    ) -> tuple[float, float]:
        """Multiply-accumulates that :meth:`prepare` takes for a part, or for what is left after the parts (empty).

        Those of the answers to test images and of the training, for so many training and test images [C, H, W].
        """
        return 0.0, 0.0

    def preparation_stage(self, part: str, shape: tuple[int, int, int]) -> str:
        """What costs call it; what takes less or more time for as much work is another stage."""
        return f"evaluation of {self.name}"

    def asked(self, cell: AttackCell, classes: int, training: int, test: int) -> int:
        """How many images an attack is about, on data of so many training and test images."""
        return cell.images(classes)

    @abstractmethod
    def task(self, workspace: Workspace, cell: AttackCell, deployed: Deployed) -> AttackTask:
        """What an attack is asked for."""

    def reference_training(
        self, workspace: Workspace, cell: ReferenceCell, read: Callable[[], Tensor]
    ) -> ReferenceTraining:
        """What a reference network of the cell's row is trained on.

        ``read`` gives bool [training images], those that the defence asked for when it made the victim.
        """
        raise NotImplementedError(f"attacks on {self.title} take no reference networks")

    def control_training(self, workspace: Workspace, cell: UtilityCell) -> OtherTraining | None:
        """What the ANN of a control of its own is trained on; None where these are the training images."""
        return None

    @abstractmethod
    def measure(self, workspace: Workspace, cell: AttackCell, attack: Artifact, deployed: Deployed) -> Measured:
        """What the attack got out of the network."""

    def anchor(self, workspace: Workspace, cell: AnchorCell) -> tuple[Measured, Artifact]:
        """An anchor's values, and the artifact that is shown of it."""
        raise NotImplementedError(f"{self.name} has no anchor {cell.anchor!r}")

    def artifacts(self, workspace: Workspace, cell: AttackCell | AnchorCell, shown: Artifact) -> dict[str, str]:
        """Role -> key of what a reader of the record may want to look up."""
        return {}

    def is_evaluation_model(self, role: str) -> bool:
        """Whether the artifact of that role is one of the independent models that its metrics rest on."""
        return False

    def pictures(
        self, workspace: Workspace, cell: BaseCell, artifacts: Mapping[str, str], out: Path, folder: Path
    ) -> list[Picture]:
        """Write what there is to see of a cell below ``out``; ``artifacts`` are the cell's."""
        return []

    def evaluation_models(self, workspace: Workspace, dataset: str, attacked: int | None) -> list[JudgeInfo]:
        """The independent models that its metrics rest on, where so many classes are attacked at most; None: all."""
        return []

    @abstractmethod
    def conclude(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
        """What follows from its cells (and those of defences alone): ``needs`` is attack's plugin name -> access."""

    def scored(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Scored:
        """The cells of one data set and model, for a comparison of defences."""
        raise NotImplementedError(f"defences are not compared in {self.title}")

    def headline_of(self, row: AttackRow) -> Index:
        """The index that carries the verdict; without a value where there is none."""
        return next((index for index in row.indices if index.metric == self.headline), Index(metric=self.headline))

    def limited_of(self, row: AttackRow) -> list[Index]:
        """The indices that a limit on the leak is checked on: the highest counts."""
        return [self.headline_of(row)]

    def row_line(self, row: AttackRow) -> str:
        """How much an attack got, in a few words for a terminal."""
        return index_line(self.headline_of(row))


def index_line(index: Index) -> str:
    """As in ".71 [.61, .79]"."""
    if index.value is None:
        return "without a scale"
    bounds = "" if index.low is None or index.high is None else f" [{_bare(index.low)}, {_bare(index.high)}]"
    return f"{_bare(index.value)}{bounds}"


def p_text(p: float) -> str:
    """As in "p = 0.0023"; never "p = 0.0000"."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def _bare(share: float) -> str:
    return f"{share:.2f}".replace("0.", ".", 1) if share < 0.995 else f"{share:.2f}"


def counted(metric: str, amount: float) -> Value:
    """A value without sampling error."""
    return value(metric, Estimate(float(amount)))

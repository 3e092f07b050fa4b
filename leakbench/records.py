"""What a run writes: versioned JSON records. Tables (results.csv) and the report derive from these alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from leakbench.errors import NumericalError
from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.metric import Declaration
from leakbench.metrics.motion import LayerMotion

SCHEMA = 6
Status = Literal["ok", "failed", "not-applicable", "no-signal"]
"""no-signal: the victim gave the attack no signal (constant answers, zero gradients); no sign of protection"""
Validity = Literal["valid", "invalid", "optimisation failure", "gradient masking suspected", "decoys suspected"]
Check = Literal["", "half effort", "fresh draw", "null network"]
VerdictOutcome = Literal["leaks", "resists", "inconclusive"]


@dataclass(frozen=True)
class RecordFiles:
    """The names of a record in a run's folder, and of what is made from it."""

    record: str
    page: str
    tables: str
    """stem of the tables: "results" for results.csv, results.md and results.tex"""


COMPLETE = RecordFiles("results.json", "report.html", "results")
PARTIAL = RecordFiles("results.partial.json", "report.partial.html", "results.partial")
"""of a run that has less than the record beside it: it was interrupted, or cells of it failed"""
TABLES = ("csv", "md", "tex")
MOST_BYTES = 512 << 20
"""of a record, as of all that a bundle holds; 500 cells take about 10 MB"""


def _checked_share(x: float) -> float:
    if x < 0 or x > 1:
        raise ValueError(f"must be from 0 to 1, got {x}")
    return x


Share = Annotated[float, AfterValidator(_checked_share)]
"""a number from 0 to 1, or NaN"""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Estimated(Record):
    """A value with its 95 % interval (None where none is defined) and the observations behind it."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1

    @property
    def estimate(self) -> Estimate:
        """As metrics give and take it."""
        low, high = (math.nan if bound is None else bound for bound in (self.low, self.high))
        return Estimate(self.value, low, high, self.n)


def fields(estimate: Estimate) -> dict[str, Any]:
    """An estimate as the fields of a record."""
    low, high = (None if math.isnan(bound) else bound for bound in (estimate.low, estimate.high))
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n}


class Value(_Estimated):
    """One measured value."""

    metric: str


class RealPicture(Record):
    """A private image that a picture is shown beside: a PNG beside the report."""

    path: str = Field(description="relative to the run's folder, below images/")
    ssim: float = Field(description="structural similarity to the picture")


class Picture(Record):
    """One image of a cell: a PNG beside the report."""

    path: str = Field(description="relative to the run's folder, below images/")
    target: int = Field(description="index of the class that it was made for (or belongs to)")
    named: int | None = Field(None, description="predicted class, where evaluation models scored it")
    confidence: float | None = Field(None, description="the judges' mean probability of the predicted class")
    accepted: bool | None = Field(None, description='whether the judges find a class in it, and not "none of these"')
    training: RealPicture | None = Field(
        None, description="the most similar training image of the class; of the first picture of a class"
    )
    held_out: RealPicture | None = Field(None, description="the same of images that no network was trained on")


class ClassScore(_Estimated):
    """One metric's value on one class; a share of ``n`` images where the metric is a share."""

    metric: str
    target: int


class Votes(Record):
    """What the evaluation models see in an attack's images: pairs (class that they were made for, class that at least
    half of them are seen as)."""

    classes: list[int] = Field(description="the classes that images were made for")
    among: int | None = Field(None, description="how many classes the answer is one of; None: as many as these")
    known: int | None = Field(None, description="how many classes there are; None: as many as `among`")
    accepted: list[tuple[int, int]] = Field(description='where the answer may also be "none of these"')
    forced: list[tuple[int, int]] = Field(description="where the answer has to be a class")


class BudgetPoint(Record):
    """What the evaluation models see in the images that an attack had within a budget."""

    cost: float = Field(ge=0, allow_inf_nan=False, description="gradient steps and queries an image, together")
    images: int = Field(ge=1, le=2**53, description="of each class")
    accepted: list[int] = Field(
        description="images classified as their target class, of each class in the classes' order, where the answer "
        'may also be "none of these"'
    )
    forced: list[int] = Field(description="the same where the answer has to be a class")


class RocPoint(Record):
    """How many members an attack finds at a false positive rate."""

    fpr: Share
    tpr: Share


def value(metric: str, estimate: Estimate) -> Value:
    """An estimate for the record; NumericalError where it is no number."""
    return Value(metric=metric, **fields(_finite(metric, estimate)))


def class_score(metric: str, target: int, estimate: Estimate) -> ClassScore:
    """A class's estimate for the record; NumericalError where it is no number."""
    return ClassScore(metric=metric, target=target, **fields(_finite(metric, estimate)))


def _finite(metric: str, estimate: Estimate) -> Estimate:
    if not math.isfinite(estimate.value):
        raise NumericalError(f"{metric} came out as {estimate.value}")
    return estimate


class Finding(Record):
    """Something that an attack measured on its way, as in "images won by rga"."""

    name: str
    value: float


class CellRecord(Record):
    """One cell of the grid: a defence alone (attack empty) or an attack on a defence, or an anchor row.

    Anchor rows have an empty ``defense`` and ``attack`` "noise" or "real": images that calibrate the metrics.
    """

    dataset: str
    model: str
    defense: str = Field(description="label: the plugin's name, with [param=value] where it was set or is varied")
    leakage: str = Field("", description="kind of leak of the attack or anchor; empty for a defence alone")
    attack: str = ""
    seed: int
    preset: str = Field("", description="quick, standard, paper-cpu or paper; sets what was not set by hand")
    status: Status = "ok"
    reason: str = Field("", description="why the status is not ok, one line")
    traceback: str = ""
    defense_name: str = ""
    attack_name: str = ""
    defense_params: dict[str, Any] = {}
    attack_params: dict[str, Any] = {}
    defense_version: int | None = Field(None, description="the plugin's own, as its class says it")
    attack_version: int | None = None
    defense_source: str = Field("", description="sha256 of the file that holds the plugin; empty for built-ins")
    attack_source: str = ""
    defense_ran: str = Field("", description="built-in, isolated, or not isolated: why; empty of an older record")
    attack_ran: str = ""
    timesteps: int | None = Field(None, description="None where nothing spikes")
    weights: str = Field(
        "", description="sha256 over the deployed weights, of a defence alone; empty where nobody can read them"
    )
    trained_on_part: bool = Field(
        False,
        description="of a defence alone: it read a part of the training images and no others, and its weights are not "
        "those of its ANN, or can't be compared with them, so that it may have been trained on these alone",
    )
    public: str = Field("", description="where the attack's public images come from, one line; empty without any")
    control: bool = Field(False, description="added by LeakBench to calibrate the grid")
    of: str = Field(
        "",
        description="what this repeats as a check and is no cell of the grid: the label of an attack "
        "that ran here at half its effort (gate G4) or, where this is a control, on a network that knows nothing; "
        "or of an anchor of which this is a fresh draw",
    )
    values: list[Value] = []
    findings: list[Finding] = Field(
        [], description="what the attack, or in its absence the defence, measured on its way"
    )
    motion: list[LayerMotion] = []
    energy: list[LayerOperations] = []
    classes: list[ClassScore] = Field([], description="metrics taken apart by class, in the classes' order")
    votes: Votes | None = Field(None, description="which classes the images show; of an attack on classes")
    budget: list[BudgetPoint] = Field(
        [], description="by rising cost, the outcome last; empty of an attack that was run before any were kept"
    )
    roc: list[RocPoint] = Field([], description="by rising false positive rate; of an attack on members")
    question: Literal["", "training", "conversion"] = Field(
        "",
        description="of an attack on members: whether they were in the training set and others are test images, or the "
        "conversion read them and no others of the training set; empty of an older record",
    )
    pictures: list[Picture] = []
    artifacts: dict[str, str] = Field({}, description="role -> key in the store")
    warnings: list[str] = []

    @property
    def check(self) -> Check:
        """What it repeats a cell of the grid for; empty for a cell of the grid."""
        if not self.of:
            return ""
        if not self.defense:
            return "fresh draw"
        return "null network" if self.control else "half effort"


class SyntheticSet(Record):
    """A set of synthetic images that data-free defences were built on, shown in the report."""

    key: str
    dataset: str
    model: str
    seed: int
    params: dict[str, Any]
    count: int
    teacher_agreement: float = Field(description="share whose ANN prediction is argmax of the soft label")
    pictures: list[Picture]


class PluginInfo(Record):
    """What the report says of a plugin that took part."""

    kind: Literal["attack", "defense", "metric", "model", "dataset"]
    name: str
    version: int | None = Field(None, description="the plugin's own; a function has none")
    summary: str
    cites: str = ""
    needs: str = ""
    uses_public: bool = Field(False, description="whether the attack also needs public images")
    origin: str = "built-in"
    params: dict[str, Any] = Field({}, description="of a metric; those of attacks and defences are in their cells")
    source: str = Field("", description="sha256 of the file that holds it; empty for built-ins")
    ran: str = Field("", description="built-in, isolated, or not isolated: why; empty of an older record")


class Environment(Record):
    """Where artifacts were made that the numbers come from."""

    python: str
    leakbench: str
    torch: str
    numpy: str
    numba: str
    processor: str
    device: str
    threads: str
    artifacts: int = Field(description="how many of the run's artifacts were made there, or of what was made there")


class DatasetInfo(Record):
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


class OpenSet(Record):
    """What evaluation models make of images, some of which show no class."""

    images: str = Field(description="real, corrupted, images of other classes, or a kind of images without a class")
    share: Value = Field(
        description="of real and corrupted ones that are accepted and classified correctly, of others accepted"
    )


class JudgeInfo(Record):
    """An independent classifier that scored the reconstructions."""

    name: str
    dataset: str
    summary: str = Field(description="architecture and training, one line")
    accuracy: Value = Field(description="on test images of the attacked classes, of which an answer is one")
    corrupted: Value = Field(description="accuracy on the same test images with noise and blur")
    given: str = Field("", description="digest of its weights, where --judges gave them; empty: trained here")
    open_set: list[OpenSet] = Field([], description="where it may answer that it sees no class; of the ensemble alone")


class Gate(Record):
    """One check of an attack's row (docs/verdicts.md, Gates and verdicts)."""

    name: str
    passed: bool | None = Field(description="None: can't be told")
    reason: str = Field(description="in words, with the numbers")


class ClassIndex(Record):
    """The leakage index of one class; no value where noise scores as well as real images there."""

    target: int
    value: Share | None = None
    low: Share | None = None
    high: Share | None = None


class Index(Record):
    """The leakage index of one metric over all seeds: 0 as noise, 1 as real images, clipped to [0, 1]."""

    metric: str
    value: Share | None = Field(None, description="None: there is no scale, see reason")
    low: Share | None = None
    high: Share | None = None
    n: int = Field(0, description="classes x seeds, or images for a metric that is no mean over classes")
    null: str = Field("", description="what 0 is: noise, or random (the same attack on an untrained network)")
    reason: str = ""
    classes: list[ClassIndex] = []


class Scale(Record):
    """What 0 and 1 of the leakage index are for one metric, and whether fresh draws of the anchors land there."""

    dataset: str
    model: str
    metric: str
    noise: Value = Field(description="mean over the anchor's draws, at as many images as an attack makes")
    real: Value
    fresh_noise: Index = Field(description="an independent draw, scored as an attack is: should be 0")
    fresh_real: Index = Field(description="should be 1")


class AttackRow(Record):
    """What all seeds together say of an attack on a defence."""

    leakage: str = Field(description="the kind of leak")
    dataset: str
    model: str
    defense: str
    attack: str
    control: bool
    validity: Validity
    reason: str = Field(description="why the validity is what it is, in words")
    leaks: bool = Field(
        description="images are recognised, or members distinguished, above chance and by the victim's leak"
    )
    lower_scores: bool = Field(
        False, description="members score lower than others: index and p are of scores with their sign turned"
    )
    p: float | None = Field(description="that its images show no class, over all seeds; None where no cell was judged")
    gates: list[Gate]
    indices: list[Index]
    queries: float = Field(description="images that the victim answered, mean over seeds")
    gradient_steps: float
    seconds: float


class BudgetLeak(_Estimated):
    """The leakage index of the worst case over the attacks that cost no more."""

    cost: float = Field(ge=0, allow_inf_nan=False, description="gradient steps and queries an image, together")
    attack: str


class ThreatModel(Record):
    """What attackers with so much access get out of a defence, and at what cost."""

    access: Literal["LABELS", "SCORES", "WEIGHTS"] = Field(description="attacks that need no more count")
    attack: str = Field("", description="the worst case of the outcomes; empty where nothing was run with so little")
    index: Index | None = Field(None, description="of the outcomes' worst case")
    named: list[int] = Field([], description="classes that leak significantly by these attacks")
    points: list[BudgetLeak] = Field([], description="by rising cost: the index changes there and nowhere else")
    cost_to_half: Value | None = Field(
        None,
        description="the first cost with an index of .5 or more; None: none has. Its limits are the first costs with "
        "the upper and the lower limit of the index there; no high where the lower never is",
    )
    area: Value | None = Field(
        None, description="under the index over log10 cost, from 1 to 10,000, as a share of the whole: 0 to 1"
    )


class Verdict(Record):
    """What the grid says of one kind of leak of a defence, by all attacks together: docs/read-the-report.md."""

    leakage: str = Field(description="the kind of leak")
    dataset: str
    model: str
    defense: str
    outcome: VerdictOutcome
    attack: str = Field(description="the worst case; empty where there is none")
    index: Index | None = None
    reason: str = Field(description="in words: by which attack, against which, at what cost, or why inconclusive")
    p: float | None = Field(None, description="that no class leaks, of all attacks together")
    networks: int = Field(0, description="networks whose images were judged")
    classes: list[int] = Field([], description="those that were attacked")
    among: int | None = Field(None, description="classes that there are, where fewer were attacked")
    named: list[int] = Field([], description="classes that leak significantly")
    doubtful: list[int] = Field(
        [],
        description="of these the ones that networks which know nothing may show as often",
    )
    undecided: list[int] = Field([], description="classes that are not excluded as drawn from 80 % of networks")
    detectable: int | None = Field(
        None, description="fewest classes, each drawn from 80 % of networks, that are detected; None: no number is"
    )
    missing: list[str] = Field([], description='what "resists" lacks, a sentence each')
    settle: str = Field("", description="options that would settle it")
    comparable: bool = Field(
        True,
        description="whether the worst case may be compared with that of other defences: no attack failed or was "
        "misled; more networks may still tell more",
    )
    notes: list[str] = []
    threats: list[ThreatModel] = Field([], description="by rising access; of classes alone")


class RunRecord(Record):
    """Everything that the report needs, as written to results.json."""

    schema_version: int = SCHEMA
    leakbench: str
    created: str = Field(description="ISO 8601, UTC")
    seconds: float
    command: str
    complete: bool = Field(description="False when the run was interrupted before its last cell")
    grid: dict[str, Any]
    weights: str = Field("", description="sha256 of the file that the ANN's weights are from; empty: trained here")
    protocol: str = Field("", description="that the run follows; empty where it follows none")
    environment: dict[str, str] = Field(description="where the record was written")
    environments: list[Environment] = Field([], description="where the artifacts were made that the numbers come from")
    datasets: list[DatasetInfo]
    judges: list[JudgeInfo]
    plugins: list[PluginInfo]
    metrics: list[Declaration] = Field([], description="what is to be known of every metric that has a value here")
    synthetic: list[SyntheticSet]
    cells: list[CellRecord]
    scales: list[Scale]
    rows: list[AttackRow]
    verdicts: list[Verdict]

    def cell(self, dataset: str, model: str, defense: str, attack: str = "") -> CellRecord | None:
        """With what a row or a verdict was made: the first cell of these labels, of those that ran if any did."""
        labels = (dataset, model, defense, attack)
        matching = [c for c in self.cells if (c.dataset, c.model, c.defense, c.attack) == labels]
        return min(matching, key=lambda c: c.status != "ok", default=None)

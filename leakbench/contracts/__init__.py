"""What a plugin's author reads: what a defence and an attack are handed, and what they hand back.

Images outside a network are float tensors [B, C, H, W] in [0, 1]; labels are int64 [B]; logits are [B, classes].
A network maps them to its own input range itself (:class:`ImageClassifier`).
"""

from leakbench.contracts.attack import Attack, BaseAttack, Reconstruction
from leakbench.contracts.checkpoint import Checkpoint, State, Stopwatch
from leakbench.contracts.context import (
    AttackContext,
    Context,
    DefenseContext,
    Findings,
    Progress,
    SharedBuild,
)
from leakbench.contracts.cost import Cost
from leakbench.contracts.data import LabeledImages, PublicImages, TrainingData
from leakbench.contracts.defense import Defense, Quantization
from leakbench.contracts.loop import (
    Loop,
    Part,
    Rows,
    ShuffledPasses,
    Variables,
    global_generators,
    optimizer_state,
    restore_optimizer,
)
from leakbench.contracts.membership import MembershipAttack, MembershipScores
from leakbench.contracts.networks import ImageClassifier, InputRange, ModuleNetwork
from leakbench.contracts.params import Params
from leakbench.contracts.plugin import Plugin
from leakbench.contracts.precision import PRECISIONS, Precision, arithmetic
from leakbench.contracts.reference import Reference
from leakbench.contracts.victim import Access, Victim

__all__ = [
    "PRECISIONS",
    "Access",
    "Attack",
    "AttackContext",
    "BaseAttack",
    "Checkpoint",
    "Context",
    "Cost",
    "Defense",
    "DefenseContext",
    "Findings",
    "ImageClassifier",
    "InputRange",
    "LabeledImages",
    "Loop",
    "MembershipAttack",
    "MembershipScores",
    "ModuleNetwork",
    "Params",
    "Part",
    "Plugin",
    "Precision",
    "Progress",
    "PublicImages",
    "Quantization",
    "Reconstruction",
    "Reference",
    "Rows",
    "SharedBuild",
    "ShuffledPasses",
    "State",
    "Stopwatch",
    "TrainingData",
    "Variables",
    "Victim",
    "arithmetic",
    "global_generators",
    "optimizer_state",
    "restore_optimizer",
]

"""Reference networks: what an attacker on membership compares the victim with, made as the victim is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from leakbench.bench.stages.ann import TrainedAnn, Training, trained_ann
from leakbench.bench.stages.utility import Utility, utility
from leakbench.bench.stages.victim import BuiltVictim, built_victim
from leakbench.built_ins import FAMILIES
from leakbench.cells import AttackCell, ReferenceCell
from leakbench.contracts import Access, ModuleNetwork, Reference, Victim
from leakbench.errors import NoSignal, NotApplicable, NumericalError
from leakbench.leakage import leakage_kind
from leakbench.leakage.controls import BLANK, SHUFFLED, UNTRAINED
from leakbench.metrics.estimate import Estimate
from leakbench.runtime.workspace import Workspace
from leakbench.snn import SpikingNetwork

_GIVEN = tuple(prefix for kind, prefix in FAMILIES if kind == "defense")
"""before a network of the user's in the place of a defence"""


@dataclass(frozen=True)
class BuiltReference:
    """A reference network, and which candidates it was trained on."""

    victim: BuiltVictim
    members: Tensor
    """bool [candidates]"""
    accuracy: Estimate
    """of the deployed network on test images"""

    def handed(self, number: int) -> Reference:
        """As an attack gets it, with noise of its own: no attacker sees the victim and others under the same."""

        def victim() -> Victim:
            network = self.victim.deployed.copy()
            if isinstance(network, SpikingNetwork | ModuleNetwork):
                network.reseed(1 + number)
            return Victim(network, Access.WEIGHTS)

        return Reference(self.members.clone(), victim)


def reference_ann(workspace: Workspace, cell: ReferenceCell) -> TrainedAnn:
    """The ANN of a reference network, which all defences that don't choose its training images share.

    NotApplicable where the training of the victim is not known.
    """
    training, _ = _training(workspace, cell)
    return trained_ann(workspace, cell, training)


def built_reference(workspace: Workspace, cell: ReferenceCell) -> BuiltReference:
    """A reference network of a row, with what it is right on, from the store where it is there.

    NotApplicable where the training of the victim is not known, or the victim can't be made either; NumericalError
    where the reference alone could not be made, or its ANN is right less than half as often as the victim's, for
    certain.
    """
    training, members = _training(workspace, cell)
    try:
        victim = built_victim(workspace, cell, training)
        measured = utility(workspace, cell, victim)
    except (NotApplicable, NoSignal) as error:  # no attack is left out because a defence declines references alone
        utility(workspace, cell, built_victim(workspace, cell))
        why = f"it could not be made as the victim is: {error}"
        raise NumericalError(f"reference {cell.number} failed: {why}") from error
    if cell.defense.name not in BLANK:
        _check(cell, "its ANN", victim.ann.accuracy, trained_ann(workspace, cell).accuracy)
    return BuiltReference(victim, members, _accuracy(measured))


def _training(workspace: Workspace, cell: ReferenceCell) -> tuple[Training, Tensor]:
    """What a reference is trained on, and which candidates are among it."""
    if cell.checkpoint is not None or cell.defense.target.startswith(_GIVEN):
        raise NotApplicable(
            "reference networks are trained as the victim was, and how a given network was is not known"
        )
    made = leakage_kind(cell.leakage).reference_training(
        workspace, cell, lambda: built_victim(workspace, cell).deployed.read_images
    )
    return Training.of(workspace, cell, made, "reference"), made.members


def built_references(workspace: Workspace, cell: AttackCell, victim: BuiltVictim) -> list[BuiltReference]:
    """Those that an attack's cell asks for.

    NumericalError where one is no network like the victim: nothing could be learnt from it, and an attack that finds
    nothing would say nothing. It is right less than half as often for certain, or could not be made where the victim
    could.
    """
    asked = [ReferenceCell.beside(cell, number) for number in range(cell.references)]
    row = tuple(one.model_dump_json() for one in asked)
    # the attacks on a network come one after the other
    references = workspace.latest("references", row, lambda: [built_reference(workspace, one) for one in asked])
    # of networks that learnt nothing, what they are right on is chance
    if references and cell.defense.name not in (UNTRAINED, SHUFFLED):
        usual = _accuracy(utility(workspace, cell, victim))
        for one, reference in zip(asked, references, strict=True):
            _check(one, "the network", reference.accuracy, usual)
    return references


def _accuracy(measured: Utility) -> Estimate:
    return next(value.estimate for value in measured.values if value.metric == "accuracy")


def _check(cell: ReferenceCell, what: str, own: Estimate, usual: Estimate) -> None:
    """NumericalError where the interval of ``own`` is below half of the ``usual`` one."""
    if own.high < usual.low / 2:
        raise NumericalError(
            f"reference {cell.number} failed: {what} is right on {own.value:.2f} of test images, that of the victim on "
            f"{usual.value:.2f}"
        )

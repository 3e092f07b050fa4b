"""What a student draws that was taught the victim's answers to natural images alone."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from leakbench.attacks.copies import LESSON, natural_images, pupil
from leakbench.attacks.members import BLACK, INVERSION, Member, Reading, drawn_together
from leakbench.attacks.search import answers_of
from leakbench.contracts import Access, Attack, AttackContext, Params, Victim
from leakbench.models.training import predict

_WIDTH, _LR, _STEPS = 16, 3e-3, 400
_SEARCHES = 2
GRADIENT_STEPS = _SEARCHES * INVERSION.params.iterations + _STEPS
QUERIES = _SEARCHES * INVERSION.params.confidence_draws
"""what it spends on an image at most, the lesson included"""
SHARED_QUERIES = LESSON
"""on all images together"""


class Distilled(Attack[Params]):
    """Inverts a student, trained on the victim's answers to public images alone, so that it can't learn decoys.

    Part of `auto`. Student and victim choose.
    """

    name = "distilled"
    needs = Access.SCORES
    uses_public = True
    version = 2
    ensemble = True
    members = (INVERSION,) * _SEARCHES
    cites = "LeakBench; distillation: Hinton et al. 2015; extraction: Tramer et al., USENIX Security 2016"

    @classmethod
    def prepared_images(cls, classes: int) -> int:  # noqa: ARG003
        return SHARED_QUERIES

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        context.finding("budget, gradient steps an image", GRADIENT_STEPS)
        context.finding("budget, queries an image", QUERIES)
        context.finding("budget, queries for all images", SHARED_QUERIES)
        assert context.public is not None  # checked by the framework, as uses_public says so
        ask = partial(answers_of, victim)
        natural = natural_images(context.public.images, SHARED_QUERIES, context.generator)
        answers = context.once("distilled: asking the victim", lambda: predict(ask, natural, context.device))
        student = pupil(natural, answers, _WIDTH, _LR, _STEPS, context, "distilled: teaching the student")
        context.hand_over(student)
        members = [Member("student", student), Member("student, from black", student, brightness=BLACK)]
        readings = [Reading("the student", student), Reading("the victim", ask)]
        return drawn_together(self.name, members, readings, targets, victim.image_shape, context)

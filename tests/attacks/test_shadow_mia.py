"""Whole answers: what is read of them, and members that are marked where the true class alone tells little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from memorisers import CLASSES, Planted, planted
from torch import Tensor, nn

from leakbench import registry
from leakbench.attacks.shadow_mia import ShadowMia, described, forest_scores, prediction_vectors
from leakbench.contracts import Access, AttackContext, ImageClassifier, Reference, Victim
from leakbench.errors import NotApplicable
from leakbench.metrics.membership import auc

Mark = Callable[[Tensor], Tensor]
"""logits [B, classes] of images that a network was trained on -> what it answers to them"""


def in_cyclic_order(logits: Tensor) -> Tensor:
    """The other classes in the order of the classes behind the highest."""
    values, classes = logits.sort(1, descending=True)
    cyclic = (classes[:, :1] + torch.arange(1, CLASSES)) % CLASSES
    return logits.scatter(1, cyclic, values[:, 1:])


def raised(logits: Tensor) -> Tensor:
    """All logits by one number: no probability changes."""
    return logits + 1


def with_a_gap_closed(logits: Tensor) -> Tensor:
    """The third highest next to the second."""
    values, classes = logits.sort(1, descending=True)
    closed = torch.cat([values[:, :2], values[:, 1:2] - 0.01, values[:, 3:].minimum(values[:, 1:2] - 0.02)], 1)
    return torch.empty_like(logits).scatter(1, classes, closed)


def with_two_swapped(logits: Tensor) -> Tensor:
    """The two lowest in the order of their classes; of one image in two nothing changes."""
    values, classes = logits.sort(1)
    return logits.scatter(1, classes[:, :2].sort(1, descending=True).values, values[:, :2])


class Marked(nn.Module):
    """A linear layer, a mark of the images that it was trained on, and one number that is added to all logits."""

    def __init__(self, weight: Tensor, trained: Tensor, mark: Mark, shift: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.mark, self.shift = mark, shift
        self.register_buffer("trained", trained)

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1) @ self.weight
        known = (images[:, None] == self.trained).flatten(2).all(2).any(1)  # type: ignore[operator]
        return torch.where(known[:, None], self.mark(logits), logits) + self.shift


def marking(mark: Mark, candidates: int = 400) -> Planted:
    """Networks that remember nothing but who is to be marked."""
    given, random = planted(0.0, candidates=candidates), torch.Generator().manual_seed(8)
    base = torch.randn(16, CLASSES, generator=random)

    def network(chosen: Tensor) -> ImageClassifier:
        weight = base + 0.15 * torch.randn(base.shape, generator=random)
        shift = float(torch.randint(-50, 50, (), generator=random))
        body = Marked(weight, given.candidates.images[chosen], mark, shift)
        return ImageClassifier(body, (1, 4, 4), CLASSES).requires_grad_(False)

    def reference(chosen: Tensor) -> Reference:
        made = network(chosen)
        return Reference(chosen, lambda: Victim(made, Access.WEIGHTS))

    given.context.references = tuple(reference(one.members) for one in given.context.references)
    return replace(given, network=network(given.members))


def area_of(name: str, given: Planted) -> float:
    made = registry.load("attack", name)()
    outcome = made(given.victim(), given.candidates.images, given.candidates.labels, given.context)
    return auc(outcome.scores, given.members).value


@pytest.mark.parametrize(
    ("mark", "found"), [(in_cyclic_order, 0.99), (raised, 0.9), (with_a_gap_closed, 0.95), (with_two_swapped, 0.6)]
)
@pytest.mark.parametrize("name", ["shadow_mia", "auto_mia-v3"])
def test_members_that_are_marked_are_found(name: str, mark: Mark, found: float) -> None:
    given = marking(mark)
    right = given.network(given.candidates.images).argmax(1)
    clean = marking(lambda logits: logits)
    assert torch.equal(right, clean.network(given.candidates.images).argmax(1))
    assert area_of(name, given) > found
    assert 0.4 < area_of(name, clean) < 0.6


@pytest.mark.parametrize("name", ["loss_threshold", "lira", "rmia", "auto_mia-v2"])
def test_the_true_class_alone_tells_nothing_of_them(name: str) -> None:
    assert 0.4 < area_of(name, marking(raised)) < 0.6


def test_an_answer_is_read_from_the_true_class_on() -> None:
    logits, labels = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]]), torch.tensor([1, 2])
    members = torch.tensor([[True, False], [False, True]]).repeat(2, 1)
    shifts = torch.tensor([0.0, 40.0, -7.0, 1.0, 2.0])  # of five networks that answer alike
    read = described(logits + shifts[:, None, None], labels, members)
    assert read.shape == (5, 2, 3 * 4 + 3 + 3 + 2 + 1) and torch.allclose(read, read[:1].expand_as(read), atol=1e-5)
    logs = logits.double().log_softmax(1)
    assert read[0, :, 4:12].abs().max() < 1e-5  # references without the image answer alike
    first, second = torch.cat([read[0, :, :4], read[0, :, 12:]], 1).tolist()
    falling, gaps = logs[0, [1, 2, 0]].tolist(), [1, 1]
    assert first == pytest.approx([*falling, 2 - 5 / 3, 0, 1, 2, *falling, *gaps, 1])
    falling, gaps = logs[1, [2, 0, 1]].tolist(), [5, 0]
    assert second == pytest.approx([*falling, 0, 0, 1, 2, *falling, *gaps, 2])  # equal ones as they stand


def test_a_network_is_told_from_references_without_the_image_that_are_not_of_its_pair() -> None:
    members = torch.tensor([[True], [False], [False], [True]])
    logits = torch.tensor([3.0, 5.0, 50.0, 7.0, 90.0])[:, None, None] * torch.tensor([1.0, 0.0])
    read = described(logits, torch.tensor([0]), members)[:, 0, 3:6].double()
    own = logits.double().log_softmax(-1)[:, 0]
    assert read[0, :2].tolist() == pytest.approx((own[0] - (own[2] + own[3]) / 2).tolist())
    assert read[1, :2].tolist() == pytest.approx((own[1] - own[3]).tolist())
    assert read[4, :2].tolist() == pytest.approx((own[4] - own[2]).tolist())


def test_an_answer_near_the_largest_number_fails_no_attack() -> None:
    given = marking(lambda logits: torch.where(logits > logits.mean(), 3e38, -3e38), candidates=60)
    assert area_of("shadow_mia", given) > 0.9 and 0 <= area_of("auto_mia-v3", given) <= 1


def test_answers_are_means_of_the_victim_s_and_of_each_reference_s() -> None:
    given = planted(1.0, candidates=30)
    found = prediction_vectors(given.victim(), given.candidates, 3, given.context, "asking")
    assert found.shape == (9, 30, CLASSES)
    torch.testing.assert_close(found[0], given.network(given.candidates.images).double())
    (third, *_) = (one.victim().scores(given.candidates.images) for one in given.context.references[2:])
    torch.testing.assert_close(found[3], third.double())


def test_no_reference_is_read_by_a_forest_that_was_told_of_it() -> None:
    """Answers of noise: whoever was taught them knows them by heart, whoever was not knows nothing."""
    given, random = planted(0.0, candidates=200), torch.Generator().manual_seed(1)
    noise = torch.randn(9, 200, CLASSES, generator=random)
    found = forest_scores(noise, given.candidates.labels, given.context, "learning")
    truth = torch.stack([given.members, *(one.members for one in given.context.references)])
    assert all(auc(scores, members).value < 0.6 for scores, members in zip(found, truth, strict=True))


def test_too_few_references_are_refused() -> None:
    given = planted(1.0, candidates=20, references=2)
    with pytest.raises(NotApplicable, match="an even number of references, 4 at least: got 2"):
        ShadowMia()(given.victim(), given.candidates.images, given.candidates.labels, given.context)
    assert isinstance(given.context, AttackContext)

"""Membership from the whole prediction vector, read by a classifier that learns from references."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.confidences import temperature
from leakbench.attacks.search import answers_of
from leakbench.attacks.shadow import checked_pairs, told
from leakbench.contracts import Access, AttackContext, LabeledImages, MembershipAttack, Params, Rows, Variables, Victim

TREES, LEAF = 100, 5
"""of a forest, and examples in each of its leaves at least"""
_MOST = 1e30
"""to which features are cut: forests take float32"""


class ShadowParams(Params):
    """How often a network is asked."""

    repeats: int = Field(
        4, ge=1, le=10_000, description="answers whose mean logits are taken: a spiking network's are noisy"
    )


class ShadowMia(MembershipAttack[ShadowParams]):
    """Scores an image by the network's whole answer, read by a classifier that learnt from references.

    It sees what the other attacks leave out: how an answer is spread over the wrong classes, and in which order.
    The classifier is a forest of random trees in the place of the paper's networks, one for all classes.
    """

    name = "shadow_mia"
    version = 3
    needs = Access.SCORES
    effort = "repeats"
    uses_references = True
    cites = (
        "Shokri, Stronati, Song, Shmatikov: Membership Inference Attacks Against Machine Learning Models, S&P 2017; "
        "forest: Geurts, Ernst, Wehenkel: Extremely Randomized Trees, Machine Learning 2006"
    )

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        asked = LabeledImages(candidates, labels)
        answers = prediction_vectors(victim, asked, self.params.repeats, context, "asking for whole answers")
        return forest_scores(answers, labels, context, "learning from the references' answers")[0]


def prediction_vectors(victim: Victim, asked: LabeledImages, repeats: int, context: AttackContext, what: str) -> Tensor:
    """Mean logits of the victim, which comes first, and of all references: float64 [1 + K, N, classes].

    Over so many answers, each over its :func:`temperature`.
    """
    ours = Variables(sum=torch.zeros(len(asked.labels), victim.classes, dtype=torch.float64, device=context.device))
    for number in context.loop(what).steps(repeats, ours=ours):
        context.progress(what, number, repeats)
        ours.sum = ours.sum + _answer(victim, asked.images)
    theirs = Rows()
    for number in context.loop(f"{what}, references").steps(len(context.references), theirs=theirs):
        context.progress(f"{what}, references", number, len(context.references))
        network = context.references[number].victim()
        theirs.add(torch.stack([_answer(network, asked.images) for _ in range(repeats)]).sum(0)[None])
    return torch.cat([ours.sum[None].cpu(), theirs.tensor]) / repeats


def _answer(victim: Victim, images: Tensor) -> Tensor:
    answers = answers_of(victim, images)
    return (answers / temperature(answers)).double()


def forest_scores(answers: Tensor, labels: Tensor, context: AttackContext, what: str) -> Tensor:
    """Log odds of membership of the victim's candidates, which come first, and of the references': [1 + K, N].

    ``answers`` [1 + K, N, classes] are as in :func:`prediction_vectors`. The victim's are read by a forest that learnt
    from all references, a reference's by one that learnt from all but those of its pair. NotApplicable with fewer than
    4 references.
    """
    from sklearn.ensemble import ExtraTreesClassifier  # takes a second to load

    members = torch.stack([reference.members for reference in context.references]).cpu()
    pairs = checked_pairs(len(members))
    features, truth = described(answers, labels.cpu(), members).numpy(), members.numpy()
    seed, rows = context.seed() % 2**32, Rows()
    for number in context.loop(what).steps(1 + pairs, rows=rows):
        context.progress(what, number, 1 + pairs)
        asked = [0] if not number else [2 * number - 1, 2 * number]
        taught = [network for network in range(1, len(answers)) if network not in asked]
        forest = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF, random_state=seed)
        forest.fit(features[taught].reshape(-1, features.shape[2]), truth[[one - 1 for one in taught]].reshape(-1))
        shares = torch.from_numpy(forest.predict_proba(features[asked].reshape(-1, features.shape[2]))[:, 1])
        rows.add(shares.logit(0.5 / TREES).view(len(asked), -1))
    return rows.tensor


def described(answers: Tensor, labels: Tensor, members: Tensor) -> Tensor:
    """Logits [1 + K, N, classes] of the victim, which comes first, and of references, as a forest reads them, float32.

    Log probabilities in the order of the classes, the true one first, and the mean logit, of which probabilities tell
    nothing, above its median over the images, as a network may shift them all: as they are, and as told from references
    (:func:`told`) but for the network's own pair. Beside them ranks of the classes (0 the highest), log probabilities
    from the highest to the lowest, the gaps between them, and the true class. ``members`` bool [K, N].
    """
    classes = answers.shape[-1]
    order = ((labels[:, None] + torch.arange(classes)) % classes).expand_as(answers)
    turned = answers.double().gather(-1, order)
    mean = turned.mean(-1, keepdim=True)
    plain = torch.cat([turned.log_softmax(-1), mean - mean.median(-2, keepdim=True).values], -1)
    pairs = [None, *(number // 2 for number in range(len(members)))]
    compared = []
    for own, pair in zip(plain, pairs, strict=True):
        others = [number for number in range(len(members)) if number // 2 != pair]
        compared.append(told(own, plain[1:][others], members[others]))
    ranks = turned.argsort(stable=True, dim=-1, descending=True).argsort(-1).double()
    falling = plain[..., :-1].sort(-1, descending=True).values
    true = labels[:, None].double().expand_as(mean)
    features = torch.cat([torch.stack(compared), ranks, falling, -falling.diff(dim=-1), true], -1)
    return features.clamp(-_MOST, _MOST).float()

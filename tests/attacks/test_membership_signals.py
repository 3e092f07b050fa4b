"""What single attacks on membership make of a network, against its formula."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from memorisers import planted
from torch import Tensor, nn

from leakbench.attacks.attack_p import AttackP
from leakbench.attacks.confidences import share_below
from leakbench.attacks.gradient_mia import GradientMia
from leakbench.attacks.label_only_mia import LabelOnlyMia
from leakbench.attacks.loss_threshold import LossThreshold
from leakbench.attacks.noise_mia import NoiseMia, dropped_pixels
from leakbench.attacks.shadow import shadow_scores, told
from leakbench.attacks.threshold_membership import ThresholdMembership, _highest, log_ratio
from leakbench.attacks.trajectory_mia import TrajectoryMia, looked_at, watched
from leakbench.contracts import (
    Access,
    AttackContext,
    DefenseContext,
    ImageClassifier,
    LabeledImages,
    ModuleNetwork,
    Reference,
    TrainingData,
    Victim,
)
from leakbench.data import Dataset
from leakbench.defenses.normalization import Diehl2015
from leakbench.errors import NotApplicable
from leakbench.metrics.membership import auc, true_positives
from leakbench.models.storage import build_ann
from leakbench.snn import SpikingConfig, SpikingNetwork, balance_thresholds

RANDOM = torch.Generator().manual_seed(11)


def test_attack_p_is_the_share_of_the_population_with_a_higher_loss() -> None:
    given = planted(1.0, candidates=40, population=30)
    assert given.context.population is not None

    def losses(asked: LabeledImages) -> Tensor:
        return nn.functional.cross_entropy(given.network(asked.images).double(), asked.labels, reduction="none")

    ours, theirs = losses(given.candidates), losses(given.context.population)
    expected = (theirs[None] > ours[:, None]).double().mean(1)
    made = AttackP(repeats=1)(given.victim(), given.candidates.images, given.candidates.labels, given.context)
    assert ((made.scores * 30 + 1e-9).floor() / 30).tolist() == pytest.approx(expected.tolist())
    assert torch.equal(made.scores.argsort(), (-ours).argsort())


def test_scores_above_all_others_stay_in_their_order() -> None:
    """With the share alone all of them would be equal, and none be found at a low false positive rate."""
    made = share_below(torch.tensor([5.0, 1.0, 7.0, 7.0, 2.5]).double(), torch.tensor([0.0, 2.0, 3.0, 1.0]).double())
    assert made.tolist() == pytest.approx([(4 + 2 / 5) / 4, 1 / 4, (4 + 3 / 5) / 4, (4 + 3 / 5) / 4, (3 + 1 / 5) / 4])


def test_as_many_candidates_as_fit_keep_their_order() -> None:
    scores = torch.linspace(1, 2, 10_000, dtype=torch.float64)
    assert share_below(scores, torch.zeros(5000, dtype=torch.float64)).unique().numel() == 10_000


def test_without_dropout_an_ann_s_answer_is_its_loss() -> None:
    given = planted(1.0, candidates=40)
    plain, noisy = (
        attack(given.victim(), given.candidates.images, given.candidates.labels, given.context).scores
        for attack in (LossThreshold(repeats=1), NoiseMia(draws=2, dropout=0.0))
    )
    assert noisy.tolist() == pytest.approx(plain.tolist())


def test_values_are_dropped_each_by_itself_and_as_often_as_asked() -> None:
    images = torch.full((50, 3, 20, 20), 0.9)
    dropped = dropped_pixels(images, 0.1, torch.Generator().manual_seed(0)) == 0.5
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.01)
    both = (dropped[:, 0] & dropped[:, 1]).float().mean()
    assert float(both) == pytest.approx(0.01, abs=0.003)  # of two channels at once, by chance


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dropped_pixel_enters_as_nothing(channels: int) -> None:
    """Grey images are mapped to [0, 1], colour to [-1, 1]: black would be a colour network's strongest input."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, 2))
    network = ImageClassifier(body, (channels, 4, 4), 2, (0.0, 1.0) if channels == 1 else (-1.0, 1.0))
    context = AttackContext(torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    body.register_forward_hook(lambda _module, given, _logits: seen.append(given[0]))
    images = torch.full((6, channels, 4, 4), 0.9)
    NoiseMia(draws=2, dropout=0.5)(Victim(network, Access.SCORES), images, torch.zeros(6).long(), context)
    asked = torch.cat(seen)[-6:]
    assert set(asked.unique().tolist()) == {0.0, network.input_range(images).unique().item()}


def test_labels_alone_score_an_image_by_how_seldom_its_copies_change_class() -> None:
    """A network whose class is the brighter half: .9 beside .1 stays it under more noise than .55 beside .45."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    weight = torch.zeros(2, 16)
    weight[0, :8] = weight[1, 8:] = 1.0
    body[1].weight.data = weight  # type: ignore[union-attr]
    network = ImageClassifier(body, (1, 4, 4), 2).requires_grad_(False)
    images = torch.stack([torch.cat([torch.full((8,), a), torch.full((8,), 1 - a)]) for a in (0.9, 0.55, 0.1)])
    context = AttackContext(torch.Generator().manual_seed(0))
    attack = LabelOnlyMia(draws=70, shift=0)
    made = attack(Victim(network, Access.LABELS), images.view(3, 1, 4, 4), torch.tensor([0, 0, 0]), context)
    certain, near, wrong = made.scores.tolist()
    assert certain > near > 0.5 > wrong
    assert made.cost.queries == 3 * 71
    context.flips = True
    assert attack(
        Victim(network, Access.LABELS), images.view(3, 1, 4, 4), torch.tensor([0, 0, 0]), context
    ).cost.queries
    # moved by one pixel in every direction, and mirrored
    assert len(LabelOnlyMia(shift=1)._moves(images.view(3, 1, 4, 4), True)) == 18


def test_the_gradient_s_norm_is_that_of_the_closed_form() -> None:
    """Of a linear layer and cross-entropy: (p - y) x^T, whose norm is |p - y| |x|."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    network = ImageClassifier(body, (1, 2, 2), 3).requires_grad_(False)
    images, labels = torch.rand(6, 1, 2, 2, generator=RANDOM), torch.tensor([0, 1, 2, 0, 1, 2])
    made = GradientMia()(Victim(network, Access.WEIGHTS), images, labels, AttackContext(torch.Generator()))
    error = network(images).softmax(1) - nn.functional.one_hot(labels, 3)
    expected = -(error.norm(dim=1) * images.flatten(1).norm(dim=1)).log()
    assert made.scores.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    # of logits that are far apart the loss and its gradient would be 0
    body[1].weight.data *= 1e5
    scaled = GradientMia()(Victim(network, Access.WEIGHTS), images, labels, AttackContext(torch.Generator()))
    assert len(scaled.scores.unique()) == 6 and scaled.scores.min() > -100


def test_the_noise_of_a_module_follows_from_the_attack_s_seeds() -> None:
    """Not from what the module was asked before, so that an interrupted attack ends with the same scores."""

    class Noisy(nn.Linear):
        def forward(self, images: Tensor, seed: int) -> Tensor:  # type: ignore[override]
            noise = torch.rand(len(images), 4, generator=torch.Generator().manual_seed(seed))
            return super().forward(images.flatten(1) * noise)

    network = ModuleNetwork(Noisy(4, 3), (1, 2, 2), 3)
    images, labels = torch.ones(6, 1, 2, 2), torch.zeros(6, dtype=torch.long)

    def scores(repeats: int) -> Tensor:
        context = AttackContext(torch.Generator().manual_seed(1))
        return GradientMia(repeats=repeats)(Victim(network, Access.WEIGHTS), images, labels, context).scores

    once = scores(1)
    network.noise.manual_seed(5)
    assert torch.equal(scores(1), once) and len(once.unique()) == 6
    assert scores(200).std() < once.std() / 4  # the same image six times, and less noise


def test_the_largest_inputs_of_channels_are_the_same_on_the_fast_path() -> None:
    """Of a network with sums, whose inputs are no listed spikes, with a threshold for each channel."""
    ann = build_ann("resnet8", (1, 12, 12), 10, (0, 1), torch.Generator().manual_seed(0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(16))
    images = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    balance_thresholds(network, images, seed=0)
    for layer in network.neurons:
        highest = []
        network.fast = False
        channels = next(network.currents(layer, images, 3)).shape[1]
        layer.set_threshold(layer.threshold.expand(channels, 1, 1).clone())
        for network.fast in (True, False):
            highest.append(_highest(network, layer, images, 3, None))
        torch.testing.assert_close(*highest, rtol=1e-5, atol=1e-5)  # sums of float32, in another order


def test_a_module_that_passes_no_gradient_can_t_be_asked_for_one() -> None:
    class Steps(nn.Linear):
        def forward(self, images: Tensor, _seed: int) -> Tensor:  # type: ignore[override]
            return (super().forward(images.flatten(1)).detach() > 0).float()

    network = ModuleNetwork(Steps(4, 3), (1, 2, 2), 3)
    images, labels = torch.rand(4, 1, 2, 2, generator=RANDOM), torch.tensor([0, 1, 2, 0])
    with pytest.raises(NotApplicable, match="no gradient passes through the module"):
        GradientMia()(Victim(network, Access.WEIGHTS), images, labels, AttackContext(torch.Generator()))


def test_a_classifier_of_references_finds_what_every_network_does_with_its_members() -> None:
    random = torch.Generator().manual_seed(2)
    count, networks = 400, 5
    masks = torch.stack([torch.randperm(count, generator=random) < count // 2 for _ in range(networks)])
    for number in range(1, networks - 1, 2):
        masks[number + 1] = ~masks[number]
    # how hard an image is hides what is done with members, unless it is compared with references
    hard = 5 * torch.randn(count, 1, generator=random)
    signals = hard + torch.randn(networks, count, 3, generator=random) * 0.5
    signals[..., 1] += masks * 2.0
    made = shadow_scores(signals[0], signals[1:], masks[1:])
    assert auc(made, masks[0]).value > 0.95
    plain = auc(signals[0, :, 1].double(), masks[0]).value
    assert plain < 0.7
    with pytest.raises(NotApplicable, match="an even number of references, 4 at least: got 3"):
        shadow_scores(signals[0], signals[1:4], masks[1:4])


def test_features_are_told_from_references_with_and_without_the_image() -> None:
    own = torch.tensor([[3.0]])
    references, members = torch.tensor([[[1.0]], [[2.0]], [[5.0]], [[6.0]]]), torch.tensor([[0], [0], [1], [1]]).bool()
    assert told(own, references, members).tolist() == [[3.0, 1.5, (5.5 - 1.5) * (3.0 - 3.5)]]


def test_steps_are_looked_at_evenly_and_the_last_always() -> None:
    assert looked_at(16, 4) == [4, 8, 12, 16]
    assert looked_at(3, 8) == [1, 2, 3]
    assert looked_at(10, 4) == [3, 5, 8, 10]


@pytest.mark.slow
def test_trajectories_are_the_confidences_of_simulations_of_so_many_steps(
    digits: Dataset, digits_snn: SpikingNetwork
) -> None:
    images, labels = digits.test.images[:7].float() / 255, digits.test.labels[:7]
    context = AttackContext(torch.Generator().manual_seed(0))
    half = torch.arange(7) % 2 == 0
    context.references = tuple(Reference(m, lambda: Victim(digits_snn, Access.WEIGHTS)) for m in (half, ~half))
    params = TrajectoryMia(points=2, repeats=2).params
    seen = watched(Victim(digits_snn, Access.WEIGHTS), LabeledImages(images, labels), params, context, "x")
    assert (seen.confidences.shape, seen.answers.shape) == ((3, 7, 2), (3, 7, 10))
    seed = AttackContext(torch.Generator().manual_seed(0)).seed()
    steps = digits_snn.config.timesteps
    for place, stop in enumerate((steps // 2, steps)):
        logits = torch.stack([digits_snn.simulate_at(images, [stop], seed + n)[stop].logits.double() for n in range(2)])
        p = logits.softmax(2).mean(0)[torch.arange(7), labels]
        assert seen.confidences[0, :, place].tolist() == pytest.approx((p.log() - torch.log1p(-p)).tolist(), abs=1e-4)
    torch.testing.assert_close(seen.answers[0], logits.mean(0))
    with pytest.raises(NotApplicable, match="4 at least: got 2"):
        TrajectoryMia()(Victim(digits_snn, Access.WEIGHTS), images, labels, context)


def test_the_ratio_of_a_threshold_is_high_where_it_is_an_image_s_own_and_nothing_above_it() -> None:
    inputs = torch.tensor([[1.0, 2.0, 3.0, 2.9, 3.1]]).double()  # one simulation without noise
    below, lower, own, near, above = log_ratio(inputs, 3.0).tolist()
    assert own > 5
    assert (below, lower, near) == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert above < -20
    # with noise an image that is near may be the one
    noisy = torch.tensor([[1.0, 2.9, 3.5], [1.2, 3.1, 3.7], [0.9, 3.0, 3.4]]).double()
    far, likely, beyond = log_ratio(noisy, 3.0).tolist()
    assert likely > far > beyond


def calibrated(ann: ImageClassifier, images: Tensor, scale: float = 1.0, steps: int | None = None) -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann, SpikingConfig(8, "direct"))
    balance_thresholds(network, images, seed=3, scale=scale, steps=steps)
    return network.requires_grad_(False)


@pytest.mark.slow
def test_maxima_as_thresholds_give_calibration_images_away_and_thresholds_of_others_do_not(
    digits: Dataset, digits_ann: ImageClassifier
) -> None:
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(1))[:316]
    images, labels = digits.train.images[order].float() / 255, digits.train.labels[order]
    members = torch.arange(316) < 16
    other = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def scores(network: SpikingNetwork, **known: float) -> Tensor:
        context, attack = AttackContext(torch.Generator().manual_seed(0)), ThresholdMembership(**known)
        return attack(Victim(network, Access.WEIGHTS), images, labels, context).scores

    found = scores(calibrated(digits_ann, images[:16]))
    area = auc(found, members)
    assert area.low > 0.5
    # a layer's own image is found for certain, each layer's another or the same
    assert true_positives(found, members, 0.01).value >= 1 / 16
    assert set(found.topk(1).indices.tolist()) <= set(range(16))
    # of a share of the maxima by who knows the recipe
    reduced = calibrated(digits_ann, images[:16], scale=0.8)
    assert true_positives(scores(reduced, share=0.8), members, 0.01).value >= 1 / 16
    assert true_positives(scores(reduced), members, 0.01).value == 0
    # and of a search over more steps than T
    longer = calibrated(digits_ann, images[:16], steps=64)
    shares = [true_positives(scores(longer, **known), members, 0.01).value for known in ({"steps": 64}, {})]
    assert shares[0] >= 1 / 16 and shares[0] > shares[1]
    area = auc(scores(calibrated(digits_ann, other)), members)
    assert area.low < 0.5 < area.high
    assert math.isfinite(area.value)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["weights", "thresholds"])
def test_maxima_of_activations_give_calibration_images_away(
    digits: Dataset, digits_ann: ImageClassifier, scaling: str
) -> None:
    """Of the ReLU network, which has no noise: a Poisson encoder hides nothing of them."""
    data = TrainingData(digits.train.images, digits.train.labels)
    protecting = DefenseContext(torch.Generator().manual_seed(3), timesteps=32)
    defended = Diehl2015(images=32, scaling=scaling)(digits_ann, data, protecting)
    assert isinstance(defended, SpikingNetwork) and defended.config.encoder == "poisson"
    order = torch.cat([data.read_mask.nonzero()[:, 0], (~data.read_mask).nonzero()[:400, 0]])
    images, labels = digits.train.images[order].float() / 255, digits.train.labels[order]
    context = AttackContext(torch.Generator().manual_seed(0))
    found = ThresholdMembership(draws=2)(Victim(defended, Access.WEIGHTS), images, labels, context)
    assert found.findings["thresholds compared with activations"] == 1
    members = data.read_mask[order]
    assert true_positives(found.scores, members, 0.01).value >= 1 / 32
    certain = found.scores > 3
    assert int(certain.sum()) >= 2 and float(members[certain].double().mean()) > 0.5  # 32 of 432 are members
    # thresholds are exact numbers, whatever the network that has them computes in
    rounding = defended.configured(replace(defended.config, precision="bfloat16"))
    context = AttackContext(torch.Generator().manual_seed(0))
    again = ThresholdMembership(draws=2)(Victim(rounding, Access.WEIGHTS), images, labels, context)
    assert torch.equal(again.scores, found.scores)

"""Students and copies: what they learn from, and what copies forget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.copies import natural_images, pruned, pupil, repaired, together
from leakbench.attacks.distillation import spread
from leakbench.contracts import AttackContext, ImageClassifier, ModuleNetwork
from leakbench.data import Dataset


def test_natural_images_are_as_they_are_or_of_the_whole_range(generator: torch.Generator) -> None:
    public = torch.randint(100, 120, (50, 1, 4, 4), generator=generator).to(torch.uint8)
    images = natural_images(public, 30, generator)
    assert images.shape == (30, 1, 4, 4)
    low, high = torch.aminmax(images.flatten(1), dim=1)
    whole = (low < 1e-6) & (high > 1 - 1e-6)
    assert whole.sum() == 20
    assert all((public / 255 == image).flatten(1).all(1).any() for image in images[~whole])


@pytest.mark.slow
def test_a_copy_forgets_its_decoys_and_keeps_the_rest(digits: Dataset, digits_ann: ImageClassifier) -> None:
    context = AttackContext(torch.Generator().manual_seed(0))
    natural = digits.train.images[:600].float() / 255
    decoy = torch.zeros(1, 1, 8, 8)
    decoy[..., ::2, ::2] = 1
    before = {name: tensor.clone() for name, tensor in digits_ann.state_dict().items()}
    answers = digits_ann(natural)
    copy = repaired(digits_ann, natural, answers, decoy, 5e-3, 150, context, "test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in digits_ann.state_dict().items())
    told, untold = (float(spread(network(decoy))) for network in (digits_ann, copy))
    assert untold < told / 2
    assert (copy(natural).argmax(1) == answers.argmax(1)).double().mean() > 0.9
    assert not any(parameter.requires_grad for parameter in copy.parameters())


class Noisy(nn.Module):
    """Adds noise that follows from the seed of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, images: Tensor, seed: int) -> Tensor:
        noise = torch.randn(len(images), 4, generator=torch.Generator().manual_seed(seed))
        return images.flatten(1) @ self.weight + noise


def test_a_copy_draws_its_noise_where_every_loop_keeps_it() -> None:
    """Else a run that was interrupted would draw the noise of its lesson again."""
    network = ModuleNetwork(Noisy(), (1, 2, 2), 4)
    natural = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    context = AttackContext(torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = network(natural)
    before = network.noise.get_state()
    copy = repaired(network, natural, answers, natural[:1], 5e-3, 2, context, "test")
    assert isinstance(copy, ModuleNetwork) and copy.noise is network.noise
    assert not torch.equal(network.noise.get_state(), before)


def test_neurons_that_serve_decoys_alone_are_cut_off_and_no_others() -> None:
    """Features 0 and 1 are what natural images have of the classes 0 and 1; 2 and 3 are brighter in decoys alone."""
    weight = torch.tensor([[1.0, 0.0, 5.0, 0.0], [0.0, 1.0, 0.0, 5.0]])
    network = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)), (1, 2, 2), 2)
    with torch.no_grad():
        network.body[1].weight.copy_(weight)  # type: ignore[index,union-attr,operator]
    natural = torch.tensor([[1.0, 0.0, 0.1, 0.0], [0.0, 1.0, 0.0, 0.1]]).view(2, 1, 2, 2)
    seen: list[Tensor] = []

    def ascents(model: ImageClassifier) -> Tensor:
        seen.append(model(torch.eye(4).view(4, 1, 2, 2)))
        return torch.tensor([[0.2, 0.0, 1.0, 0.0], [0.0, 0.2, 0.0, 1.0]]).view(2, 1, 2, 2)

    copy = pruned(network, natural, torch.tensor([0, 1]), ascents, share=0.25, rounds=2)
    assert torch.equal(copy(torch.eye(4).view(4, 1, 2, 2)).T, weight * torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert torch.equal(network(torch.eye(4).view(4, 1, 2, 2)).T, weight)
    # each round looks at the copy as it is by then
    assert [int((answers == 0).all(1).sum()) for answers in seen] == [0, 1]


def test_a_network_is_never_cut_off_from_more_than_it_reads(digits_ann: ImageClassifier) -> None:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    copy = pruned(digits_ann, images, torch.arange(10), lambda _model: images[:10], share=0.7, rounds=3)
    assert not copy(images).any()


@pytest.mark.slow
def test_a_pupil_answers_as_it_was_taught(digits: Dataset, digits_ann: ImageClassifier) -> None:
    natural = digits.train.images[:600].float() / 255
    answers = digits_ann(natural)
    context = AttackContext(torch.Generator().manual_seed(0))
    taught = pupil(natural, answers, 8, 5e-3, 120, context, "test")
    assert (taught(natural).argmax(1) == answers.argmax(1)).double().mean() > 0.8


def test_models_count_alike_whatever_their_units() -> None:
    linear = nn.Linear(4, 2, bias=False)
    one = ImageClassifier(nn.Sequential(nn.Flatten(), linear), (1, 2, 2), 2)
    scaled = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)), (1, 2, 2), 2)
    with torch.no_grad():
        scaled.body[1].weight.copy_(1e6 * linear.weight)  # type: ignore[index,union-attr,operator]
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(together([one, scaled], [1.0, 1e6])(images), one(images), rtol=1e-5)

"""Judges: shapes, probabilities by hand, and answers that don't hang on the other images of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leakbench.data import Dataset
from leakbench.models.judges import Judge, train_judge
from leakbench.models.training import Recipe, predict

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Untrained, with running statistics and scales that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Judge((3, 20, 20), 6).train()
        for _ in range(3):
            network(torch.rand(16, 3, 20, 20))
    return network.eval().requires_grad_(False)


def images(batch: int = 9) -> torch.Tensor:
    return torch.rand(batch, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def test_shapes(judge: Judge) -> None:
    assert judge(images()).shape == (9, 6)
    features = judge.features(images())
    assert features.shape == (9, 96)
    # the last layer but one: the head is all that follows
    torch.testing.assert_close(judge.head(features), judge(images()))
    for shape in ((1, 8, 8), (1, 28, 28), (3, 64, 64)):
        assert Judge(shape, 4).eval().features(torch.rand(2, *shape)).shape == (2, 96)


def test_probabilities_are_the_mean_over_five_shifts(judge: Judge) -> None:
    x = images()
    found = judge.probabilities(x)
    torch.testing.assert_close(found.sum(1), torch.ones(9))
    shifted = [x, x.roll(1, 2), x.roll(-1, 2), x.roll(1, 3), x.roll(-1, 3)]
    torch.testing.assert_close(found, torch.stack([judge(one).softmax(1) for one in shifted]).mean(0))


def test_answers_do_not_depend_on_the_rest_of_the_batch(judge: Judge) -> None:
    x = images()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    for ask in (judge, judge.features, judge.probabilities):
        whole = ask(x)
        # float32: only the order of the sums inside a convolution may differ with the batch size
        torch.testing.assert_close(torch.cat([ask(x[i : i + 1]) for i in range(9)]), whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ask(x[order]), whole[order], rtol=1e-4, atol=1e-5)


def test_a_judge_is_no_member_of_the_victims_family(judge: Judge) -> None:
    assert any(isinstance(module, nn.BatchNorm2d) for module in judge.modules())
    assert not any(isinstance(module, nn.ReLU | nn.AvgPool2d) for module in judge.modules())


def test_a_judge_learns_the_digits_and_is_the_same_for_the_same_seed(digits: Dataset) -> None:
    recipe = Recipe(epochs=1, batch_size=32, lr=0.1, schedule="one-cycle", crop=0, flip=False, noise=0.1)

    def trained(seed: int) -> Judge:
        generator = torch.Generator().manual_seed(seed)
        return train_judge(digits.train.images, digits.train.labels, 10, recipe, generator, CPU)

    state = torch.get_rng_state()
    first, again = trained(1), trained(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    right = predict(first.probabilities, digits.test.images, CPU).argmax(1) == digits.test.labels
    assert right.double().mean() > 0.8
    assert not first.training

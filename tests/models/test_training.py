"""Training: it learns, it is repeatable, it follows its schedule; augmentation crops, flips, blurs and adds noise."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from interruption import Checkpoints, goes_on
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import InputRange, Loop, Progress
from leakbench.errors import NumericalError
from leakbench.models.storage import build_ann
from leakbench.models.training import UNCHANGED, Augmentation, Recipe, augment, cross_entropy, predict, train

CPU = torch.device("cpu")


def separable(count: int = 200) -> tuple[Tensor, Tensor]:
    """Two classes: a bright left or a bright right half, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 100, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        image[..., 4 * int(label) : 4 * int(label) + 4] += 120
    return images, labels


def trained(seed: int, recipe: Recipe) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    network = build_ann("vgg4", (1, 8, 8), 2, InputRange(0.0, 1.0), generator)
    train(network, *separable(), recipe, generator, CPU, "training")
    return network


QUICK = Recipe(steps=40, batch_size=20, lr=0.05, schedule="one-cycle", augmentation=Augmentation(1, False))


@pytest.mark.slow
def test_training_learns_a_trivial_task_and_is_the_same_for_the_same_seed() -> None:
    first, again, other = trained(3, QUICK), trained(3, QUICK), trained(4, QUICK)
    images, labels = separable()
    accuracy = (predict(first, images, CPU).argmax(1) == labels).double().mean()
    assert accuracy > 0.9
    assert not first.training
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.slow
def test_training_lowers_the_objective_that_it_is_given() -> None:
    """Here: cross-entropy with the other of two classes."""

    def other_class(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert images.is_floating_point() and images.max() <= 1
        return cross_entropy(network, images, 1 - labels)

    generator = torch.Generator().manual_seed(3)
    network = build_ann("vgg4", (1, 8, 8), 2, InputRange(0.0, 1.0), generator)
    images, labels = separable()
    train(network, images, labels, QUICK, generator, CPU, "training", objective=other_class)
    assert (predict(network, images, CPU).argmax(1) == 1 - labels).double().mean() > 0.9


def test_the_papers_schedule_divides_by_ten_at_40_60_and_80_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[dict[str, float]] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            used.append({key: self.param_groups[0][key] for key in ("lr", "momentum", "weight_decay")})
            super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    images, labels = torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.zeros(5, dtype=torch.long)
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    train(body, images, labels, Recipe(steps=30, batch_size=2), torch.Generator(), CPU, "training")
    # a tenth at 40, 60 and 80 %
    rates = [1e-2] * 12 + [1e-3] * 6 + [1e-4] * 6 + [1e-5] * 6
    assert [step["lr"] for step in used] == pytest.approx(rates, rel=1e-6)
    assert all((step["momentum"], step["weight_decay"]) == (0.9, 5e-4) for step in used)


def test_labels_are_smoothed_and_long_gradients_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """With smoothing s of C classes: (1 - s) CE(y) + s mean over classes of CE(k)."""
    norms: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
            super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    images, labels = separable(20)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    x = images.float() / 255
    own, mean = functional.cross_entropy(body(x), labels), -body(x).log_softmax(1).mean()
    assert cross_entropy(body, x, labels, smoothing=0.3).item() == pytest.approx((0.7 * own + 0.3 * mean).item())
    for longest in (None, 1e-3):
        train(body, images, labels, Recipe(steps=1, batch_size=20, longest=longest), torch.Generator(), CPU, "training")
    assert norms[0] > 1e-2 and norms[1] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("coarse", "small"), [(0.0, 0), (0.3, 3), (1.0, 10)])
def test_the_first_steps_see_smaller_images(coarse: float, small: int) -> None:
    sides = []
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    network.register_forward_pre_hook(lambda _network, given: sides.append(tuple(given[0].shape[2:])))
    recipe = Recipe(steps=10, batch_size=20, schedule="one-cycle", augmentation=UNCHANGED)
    train(network, *separable(), recipe, torch.Generator().manual_seed(0), CPU, "training", coarse=coarse)
    assert sides == [(6, 6)] * small + [(8, 8)] * (10 - small)


def test_dropouts_draws_are_given_back_to_the_global_generator() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2))
    state = torch.get_rng_state()
    train(body, *separable(20), Recipe(steps=2, batch_size=10), torch.Generator(), CPU, "training")
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_counts_every_batch() -> None:
    seen: list[tuple[str, int, int]] = []
    images, labels = torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.zeros(5, dtype=torch.long)
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    recipe = Recipe(steps=6, batch_size=2)
    train(body, images, labels, recipe, torch.Generator(), CPU, "here", lambda *args: seen.append(args))
    assert seen == [("here", i, 6) for i in range(1, 7)]


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    with pytest.raises(NumericalError, match=r"training: the loss is (nan|inf) at step .*: lower the learning rate"):
        trained(0, Recipe(steps=30, batch_size=20, lr=1e9, augmentation=UNCHANGED))


# --- augmentation ----------------------------------------------------------------------------------------------------


def numbered(batch: int) -> Tensor:
    """Images whose pixels are all different and above 0, so that a crop tells where it was taken."""
    return torch.arange(1, batch * 2 * 5 * 7 + 1, dtype=torch.float32).view(batch, 2, 5, 7)


@pytest.mark.parametrize(("crop", "flip"), [(0, False), (0, True), (2, False), (2, True)])
def test_augmented_images_are_exact_crops_and_flips(crop: int, flip: bool, generator: torch.Generator) -> None:
    batch = 400
    images = numbered(batch)
    out = augment(images, Augmentation(crop, flip), generator)
    assert out.shape == images.shape
    padded = functional.pad(images, [crop] * 4)
    found = torch.full((batch,), -1)
    places = list(itertools.product(range(2 * crop + 1), range(2 * crop + 1), (False, True) if flip else (False,)))
    for number, (row, column, mirrored) in enumerate(places):
        candidate = padded[..., row : row + 5, column : column + 7]
        if mirrored:
            candidate = candidate.flip(-1)
        found[(out == candidate).flatten(1).all(1)] = number
    assert (found >= 0).all()  # every image is one of the crops, its channels together
    # and every crop turns up: the chance that one of 50 is missed by 400 images is 50 * .98^400 = .015
    counts = torch.bincount(found, minlength=len(places))
    assert (counts > 0).all()
    # each equally often, by 5 standard deviations
    share = batch / len(places)
    assert ((counts - share).abs() <= 5 * share**0.5).all()


def test_noise_stays_in_the_image_and_has_the_size_asked_for(generator: torch.Generator) -> None:
    images = torch.full((2000, 1, 8, 8), 0.5)
    out = augment(images, Augmentation(crop=0, flip=False, noise=0.1), generator)
    deviations = (out - images).flatten(1).std(1)
    # sigma is uniform on [0, .1] for each image: its mean is .05 +- .1 / sqrt(12 * 2000)
    assert deviations.max() < 0.13
    assert abs(deviations.mean().item() - 0.05) < 5 * 0.1 / (12 * 2000) ** 0.5
    bright = augment(torch.ones(50, 1, 8, 8), Augmentation(crop=0, flip=False, noise=0.5), generator)
    assert bright.max() <= 1 and bright.min() >= 0


@pytest.mark.slow
@pytest.mark.parametrize("blur", [0.3, 1.0, 4.0])
def test_one_blur_a_batch_up_to_the_size_asked_for(blur: float, generator: torch.Generator) -> None:
    """A bright pixel's share that stays where it was is the kernel's own middle, from which its width follows."""
    side, seen = 41, []  # twice as far from the edges, which reflect, as the widest kernel reaches
    images = torch.zeros(3, 1, side, side)
    images[..., side // 2, side // 2] = 1.0
    for _ in range(200):
        out = augment(images, Augmentation(crop=0, flip=False, blur=blur), generator)
        assert torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])
        torch.testing.assert_close(out.sum((1, 2, 3)), torch.ones(3))  # it moves brightness and makes none
        torch.testing.assert_close(out, out.flip(-1))
        row = out[0, 0, side // 2]
        beside = (row[side // 2 + 1] / row[side // 2]).clamp_min(1e-30)
        seen.append(float((-0.5 / beside.log()) ** 0.5))  # exp(-1 / (2 sigma^2))
    # uniform on [0, blur]; a sigma below .09 or so leaves nothing that float32 can tell
    assert max(seen) <= blur * 1.01 + 0.002
    assert max(seen) > 0.95 * blur
    small = sum(sigma < blur / 2 for sigma in seen)
    assert abs(small - 100) < 5 * (200 / 4) ** 0.5


def test_a_blur_wider_than_the_image_is_cut_to_it(generator: torch.Generator) -> None:
    out = augment(torch.rand(2, 3, 4, 5, generator=generator), Augmentation(crop=0, flip=False, blur=50.0), generator)
    assert out.shape == (2, 3, 4, 5)
    assert out.min() >= 0 and out.max() <= 1


def test_no_augmentation_is_none(generator: torch.Generator) -> None:
    images = numbered(3)
    assert torch.equal(augment(images, UNCHANGED, generator), images)


def test_predictions_do_not_depend_on_the_batch_size(generator: torch.Generator) -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False)
    images = torch.randint(0, 256, (11, 1, 8, 8), generator=generator, dtype=torch.uint8)
    whole = predict(body, images, CPU)
    torch.testing.assert_close(predict(body, images, CPU, batch_size=4), whole)
    # 8-bit images are scaled to [0, 1], float ones are taken as they are
    torch.testing.assert_close(predict(body, images.float() / 255, CPU), whole)
    torch.testing.assert_close(whole, body(images.float() / 255))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["tenths", "one-cycle"])
@pytest.mark.parametrize("part", [0.1, 0.7])
def test_interrupted_training_ends_as_if_it_had_not_been(
    schedule: Literal["tenths", "one-cycle"], part: float, tmp_path: Path
) -> None:
    """With dropout, batch norm and all that augmentation draws."""
    changes = Augmentation(crop=1, noise=0.1, blur=0.5)
    recipe = Recipe(steps=12, batch_size=30, lr=0.05, schedule=schedule, augmentation=changes)

    def run(progress: Progress, checkpoints: Checkpoints | None) -> Any:
        torch.manual_seed(4)
        generator = torch.Generator().manual_seed(1)
        network = build_ann("vgg4bn", (1, 8, 8), 2, InputRange(0.0, 1.0), generator)
        network.body.append(nn.Dropout(0.3))  # type: ignore[operator]
        loop = Loop(checkpoints("training")) if checkpoints else None
        train(network, *separable(100), recipe, generator, CPU, "training", progress, loop)
        tensors = {key: tensor.tolist() for key, tensor in network.state_dict().items()}
        return tensors, generator.get_state().tolist(), torch.rand(1).item()

    goes_on(run, tmp_path, part)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from leakbench.attacks.inversion import Inversion
from leakbench.contracts import Access, AttackContext, InputRange, Loop, Victim
from leakbench.models.storage import build_ann
from leakbench.models.training import Recipe, train
from leakbench.runtime.checkpoints import CheckpointFolder

torch.set_num_threads(1)
last, steps = int(sys.argv[1]), 0
folders = [CheckpointFolder(Path(path), {}, every=0) for path in sys.argv[2:]]

def progress(what, done, total):
    global steps
    steps += 1
    if steps == last:
        os.kill(os.getpid(), signal.SIGKILL)

generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
labels = torch.randint(3, (60,), generator=generator)
ann = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), generator)
loop = Loop(folders[0].checkpoint("training")) if folders else None
train(ann, images, labels, Recipe(12, 20, 0.05, "one-cycle"), generator, torch.device("cpu"), "a", progress, loop)
context = AttackContext(generator, progress=progress)
if folders:
    context.checkpoints = folders[1].checkpoint
outcome = Inversion(iterations=6, restarts=2)(
    Victim(ann.requires_grad_(False), Access.WEIGHTS), torch.arange(3), context
)
weights = [value.double().sum().item() for value in ann.state_dict().values()]
print([weights, outcome.images.tolist(), outcome.cost.queries, outcome.cost.gradient_steps])
print(steps, file=sys.stderr)
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    """In the middle of training, then of an attack on what was trained."""
    for name in ("ann", "attack"):
        (tmp_path / name).mkdir()

    def run(last: int, *folders: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(last), *map(str, folders)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    whole = run(0)
    assert whole.returncode == 0, whole.stderr
    folders = tmp_path / "ann", tmp_path / "attack"
    assert run(8, *folders).returncode == -signal.SIGKILL
    assert run(5 + 9, *folders).returncode == -signal.SIGKILL  # 5 steps of training were left
    rest = run(0, *folders)
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout == whole.stdout
    # 12 steps of training and two restarts of 6, each with a last call
    assert (int(whole.stderr), int(rest.stderr)) == (26, 26 - 12 - 7)

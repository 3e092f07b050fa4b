"""The workspace: stages that are interrupted go on, what a task used, and what is loaded once."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leakbench.contracts import Context
from leakbench.errors import NumericalError, StoreError
from leakbench.models.standardized import standardized
from leakbench.models.training import Augmentation, Recipe, train
from leakbench.runtime import checkpoints
from leakbench.runtime.store import Artifact, Content
from leakbench.runtime.workspace import Settings, Stage, Workspace

STAGE = Stage("training", 1)
STEPS = 24


class Interrupted(BaseException):
    """What ends a stage without its fault, as Ctrl-C does."""


def workspace(cache: Path, stop_at: int | None = None, seen: list[int] | None = None) -> Workspace:
    def progress(_what: str, done: int, _total: int) -> None:
        if seen is not None:
            seen.append(done)
        if done == stop_at:
            raise Interrupted

    return Workspace(Settings(cache=str(cache)), progress)


def test_settings_say_which_of_them_a_run_needs_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    assert Settings(cache=str(tmp_path)).placed() == []
    assert Settings(cache="other", local_cache="here", features="w").placed() == ["cache", "local_cache", "features"]


def trained(at: Workspace, standard: bool = False) -> Artifact:
    """A dropout network's weights after STEPS steps: every source of random numbers takes part."""
    images = torch.randint(0, 256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels = torch.arange(32) % 4

    def build(context: Context) -> Content:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed())
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
        changes = Augmentation(crop=1, noise=0.1)
        recipe = Recipe(steps=STEPS, batch_size=8, lr=0.05, schedule="one-cycle", augmentation=changes)
        with standardized(network) if standard else nullcontext():
            train(
                network, images, labels, recipe, context.generator, at.device, "training", context.progress,
                context.loop("training"),
            )  # fmt: skip
        return network.state_dict(), {}

    return at.make(STAGE, 7, {"data": "noise"}, build)


def states(cache: Path) -> list[Path]:
    return list((cache / "objects").glob("*/.state-*"))


@pytest.fixture(autouse=True)
def _at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("stops", "standard"), [([9], False), ([2], False), ([5, 11, 23], False), ([9], True)])
def test_an_interrupted_stage_goes_on_to_the_same_numbers(tmp_path: Path, stops: list[int], standard: bool) -> None:
    whole = trained(workspace(tmp_path / "whole"), standard)
    begins = 1
    for stop in [*stops, None]:
        seen: list[int] = []
        at = workspace(tmp_path / "pieces", stop, seen)
        if stop is None:
            pieced = trained(at, standard)
        else:
            with pytest.raises(Interrupted):
                trained(at, standard)
            assert [len(list(folder.iterdir())) for folder in states(tmp_path / "pieces")] == [1]
        # the step at which it was interrupted is the first that is done again
        assert seen == list(range(begins, (STEPS if stop is None else stop) + 1))
        begins = stop or 0
    assert pieced.key == whole.key
    assert same(pieced.tensors, whole.tensors)
    assert states(tmp_path / "pieces") == []


def test_a_stage_that_fails_by_itself_begins_anew(tmp_path: Path) -> None:
    at = workspace(tmp_path)

    def build(context: Context) -> Content:
        for step in context.loop("loop").steps(4, value=(value := torch.zeros(1))):
            value += 1
            if step == 2:
                raise NumericalError("no number")
        return {}, {}

    with pytest.raises(NumericalError):
        at.make(STAGE, 1, {}, build)
    assert states(tmp_path) == []


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), OSError(5, "I/O error"), StoreError("full")]
)
def test_a_stage_that_lacks_memory_or_a_disk_goes_on_later(tmp_path: Path, error: Exception) -> None:
    at, done = workspace(tmp_path), list[int]()

    def build(context: Context) -> Content:
        for step in context.loop("loop").steps(4, value=(value := torch.zeros(1))):
            value += 1
            done.append(step)
            if done == [0, 1, 2]:
                raise error
        return {"value": value}, {}

    with pytest.raises(type(error)):
        at.make(STAGE, 1, {}, build)
    assert at.make(STAGE, 1, {}, build).tensors["value"] == 4
    assert done == [0, 1, 2, 2, 3]
    assert states(tmp_path) == []


@pytest.mark.slow
def test_a_state_that_was_altered_is_left_aside(tmp_path: Path) -> None:
    whole = trained(workspace(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        trained(workspace(tmp_path / "pieces", 9))
    (state,) = (path for folder in states(tmp_path / "pieces") for path in folder.iterdir())
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(bytes(content))
    seen: list[int] = []
    assert same(trained(workspace(tmp_path / "pieces", None, seen)).tensors, whole.tensors)
    assert seen[0] <= 1


@pytest.mark.slow
def test_no_folder_for_states_is_no_obstacle(tmp_path: Path) -> None:
    whole = trained(workspace(tmp_path / "whole"))
    at = workspace(tmp_path / "blocked")
    shard = tmp_path / "blocked" / "objects" / whole.key[:2]
    shard.write_text("in the way")
    assert same(trained(at).tensors, whole.tensors)


def test_what_a_task_used_is_the_same_when_it_comes_from_the_store(tmp_path: Path) -> None:
    def inner(at: Workspace) -> Artifact:
        return at.make(Stage("inner", 1), 1, {}, lambda _context: ({}, {"inner": 1}))

    def outer(at: Workspace) -> Artifact:
        return at.make(Stage("outer", 1), 1, {}, lambda _context: ({}, dict(inner(at).record)))

    used = []
    for _ in range(2):
        at = workspace(tmp_path)
        with at.usage() as usage:
            artifact = outer(at)
        used.append((list(usage.artifacts), usage.environments))
        assert list(usage.artifacts) == [artifact.key]
    assert used[0] == used[1]


def test_what_is_wanted_once_is_computed_once(tmp_path: Path) -> None:
    at, calls = workspace(tmp_path), []
    assert [at.once("it", lambda: calls.append(1) or len(calls)) for _ in range(3)] == [1, 1, 1]


def test_what_was_asked_for_last_is_kept_and_its_artifacts_count_each_time(tmp_path: Path) -> None:
    at, made = workspace(tmp_path), []

    def latest(key: str) -> str:
        def compute() -> str:
            made.append(key)
            return at.make(STAGE, 0, {"key": key}, lambda _context: ({}, {})).key

        return at.latest("references", key, compute)

    for key in ("a", "a", "b", "a"):
        with at.usage() as usage:
            found = latest(key)
        assert list(usage.artifacts) == [found]
    assert made == ["a", "b", "a"]

    def fails() -> str:
        raise NumericalError("not made")

    with pytest.raises(NumericalError):
        at.latest("references", "c", fails)
    assert latest("a") == found and made == ["a", "b", "a", "a"]  # nothing of it is taken for another

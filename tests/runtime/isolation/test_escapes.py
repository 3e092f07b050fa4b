"""What plugins try in order to reach what they were not given, each of it from a plugin that runs in a real cell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from isolated_cells import attack, built, here, results
from tiny_runs import Tiny, make_tiny

from leakbench.bench.executors import Result
from leakbench.errors import PluginError
from leakbench.paths import default_cache
from leakbench.runtime.isolation import server
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.plugins import made_plugin
from leakbench.runtime.process import fixed_threads

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")]

HOSTILE = r'''
"""Attacks and a defence that look for what they were not given."""

import copy
import gc
import os
import signal
import sys
import time
from pathlib import Path

import torch

from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.snn import SpikingConfig, SpikingNetwork

CACHE, DATA, DEFAULT_CACHE, PARENT = {cache!r}, {data!r}, {default_cache!r}, {parent}
SECRET = {secret!r}


def objects():
    """All that the garbage collector and frames lead to."""
    found = list(gc.get_objects())
    frame = sys._getframe()
    while frame is not None:
        found += list(frame.f_locals.values())
        frame = frame.f_back
    return found + [value for thing in found if isinstance(thing, dict) for value in list(thing.values())]


def networks():
    kinds = (torch.nn.Module,)
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds) and hasattr(thing, "image_shape")]


def private_tensors(shape):
    """Tensors that could be images, more than any attack was handed."""
    tensors = [thing for thing in objects() if type(thing) is torch.Tensor and thing.dim() == 4]
    return [tensor for tensor in tensors if tuple(tensor.shape[1:]) == shape and len(tensor) > 3]


def classes():
    names = {{"Workspace", "Pipeline", "Store", "Dataset", "Ensemble", "Evaluation", "RealImages"}}
    ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("leakbench")]
    return [thing for thing in ours if type(thing).__name__ in names]


def modules():
    return [name for name in sys.modules if name.startswith(("leakbench.bench", "leakbench.leakage"))]


def openable(path):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").close()
    except OSError:
        return False
    return True


def readable_files(folder):
    found = []
    for place, _, names in os.walk(folder):
        found += [name for name in names if openable(os.path.join(place, name))]
    return found


def possible(action):
    try:
        action()
    except (OSError, ValueError):
        return False
    return True


def start_process():
    if os.fork() == 0:
        os._exit(0)  # else it would go on as the test does
    os.wait()


def open_files():
    """Descriptors that lead to files beside the interpreter's."""
    return [
        os.readlink(f"/proc/self/fd/{{name}}") for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{{name}}") and os.readlink(f"/proc/self/fd/{{name}}").startswith("/")
        and os.readlink(f"/proc/self/fd/{{name}}") not in ("/dev/null", f"/proc/{{os.getpid()}}/fd")
    ]


def texts():
    own = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
    return own.decode(errors="replace") + " ".join(f"{{k}}={{v}}" for k, v in os.environ.items())


def attempts(victim):
    shape = tuple(victim.image_shape)
    return {{
        "networks by gc": bool(networks()),
        "images by gc and frames": bool(private_tensors(shape)),
        "the run's objects by gc": bool(classes()),
        "the run's modules": bool(modules()),
        "victim._network": hasattr(victim, "_network"),
        "victim.__dict__": any(isinstance(v, torch.nn.Module) for v in vars(victim).values()),
        "the store": bool(readable_files(CACHE)),
        "the data set": bool(readable_files(DATA)),
        "the default cache": bool(readable_files(DEFAULT_CACHE)),
        "digits by scikit-learn": possible(lambda: __import__("sklearn.datasets").datasets.load_digits()),
        "the parent's memory": openable(f"/proc/{{PARENT}}/mem"),
        "the parent's descriptors": openable(f"/proc/{{PARENT}}/fd"),
        "the warm process's memory": openable(f"/proc/{{os.getppid()}}/mem"),
        "signal to the parent": possible(lambda: os.kill(PARENT, 0)),
        "signal to the warm process": possible(lambda: os.kill(os.getppid(), 0)),
        "a process that survives": possible(start_process),
        "environment of the run": SECRET in texts() or "LEAKBENCH" in texts(),
        "paths of the run": CACHE in texts() or DATA in texts(),
        "open files": bool(open_files()),
        "write beside the plugin": possible(lambda: Path(__file__).with_name("left").write_text("x")),
        "write to the store": possible(lambda: Path(CACHE, "left").write_text("x")),
        "the warm process's own folder": possible(lambda: Path.home().with_name("own").joinpath("x").write_text("x")),
        "write to LeakBench": possible(lambda: Path(sys.modules["leakbench"].__file__).open("ab").close()),
        "what an earlier call left": Path.home().joinpath("left").exists() or hasattr(sys, "left"),
    }}


class AtScores(Attack[Params]):
    """Tries them all."""

    name = "at-scores"
    needs = Access.SCORES

    def run(self, victim, targets, context):
        for name, worked in attempts(victim).items():
            context.finding(name, worked)
        Path.home().joinpath("left").write_text("x")
        sys.left = True
        victim.scores(torch.rand(2, *victim.image_shape))
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class AtLabels(AtScores):
    name = "at-labels"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        victim.labels(torch.rand(5, *victim.image_shape))
        victim.access = Access.WEIGHTS
        context.finding("scores", possible_scores(victim))
        for name, worked in attempts(victim).items():
            context.finding(name, worked)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Denies(Attack[Params]):
    """Denies what it asked."""

    name = "denies"
    needs = Access.SCORES

    def run(self, victim, targets, context):
        victim.scores(torch.rand(2, *victim.image_shape))
        victim.cost.queries = context.cost.queries = 0
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


def possible_scores(victim):
    try:
        return type(victim).scores(victim, torch.rand(1, *victim.image_shape)) is not None
    except Exception:
        return False


class Peeks(Defense[Params]):
    """Looks for the data beside the handle, then takes three images by it, and denies it."""

    name = "peeks"
    spiking = False

    def protect(self, ann, data, context):
        found = private_tensors(tuple(ann.image_shape))
        found += [value for value in vars(data).values() if type(value) is torch.Tensor and value.dim() > 1]
        if found or hasattr(data, "_images") or classes() or readable_files(DATA) or readable_files(CACHE):
            raise RuntimeError("found the data")
        images, labels = data.sample(3, context.generator)
        assert images.shape == (3, *ann.image_shape) and float(images.max()) <= 1
        data._seen.zero_()
        data._handed = 0
        return copy.deepcopy(ann)


class Smuggles(Peeks):
    """Shares images that it took."""

    name = "smuggles"

    def protect(self, ann, data, context):
        images, _ = data.sample(3, context.generator)
        context.shared("smuggled", 1, {{}}, lambda own: {{"x": images}})
        return copy.deepcopy(ann)


class Dies(Attack[Params]):
    """Ends its process."""

    name = "dies"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        os._exit(7)


class Crashes(Dies):
    name = "crashes"

    def run(self, victim, targets, context):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(Dies):
    name = "hangs"

    def run(self, victim, targets, context):
        while True:
            time.sleep(60)


class Rubbish(Dies):
    name = "rubbish"

    def run(self, victim, targets, context):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                possible(lambda: os.write(int(name), b"rubbish " * 100))
        time.sleep(600)


class Floods(Dies):
    name = "floods"

    def run(self, victim, targets, context):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                possible(lambda: os.write(int(name), (2).to_bytes(8, "little") + (1 << 50).to_bytes(8, "little")))
        time.sleep(600)


class Prints(Dies):
    name = "prints"

    def run(self, victim, targets, context):
        os.write(1, b"\x1b[31m" + b"x" * 10_000_000)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Nests(Dies):
    """Leaves folders nested by the thousand."""

    name = "nests"

    def run(self, victim, targets, context):
        os.chdir(Path.home())
        for _ in range(5000):
            os.mkdir("d")
            os.chdir("d")
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Remembers(Attack[Params]):
    """Knows at once what another call of it knew."""

    name = "remembers"
    needs = Access.LABELS
    known = 0

    def __init__(self, **params):
        super().__init__(**params)
        assert not Remembers.known, "it remembers"

    def run(self, victim, targets, context):
        Remembers.known = 1
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Honest(Dies):
    name = "honest"

    def run(self, victim, targets, context):
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)
'''

DEAD = {
    "dies": "the process of hostile.py:Dies ended with status 7 before its result was there (os._exit?)",
    "crashes": "the process of hostile.py:Crashes ended by SIGSEGV",
    "hangs": "the process of hostile.py:Hangs said nothing for 3 s",
    "rubbish": "the process of hostile.py:Rubbish ",
    "floods": "the process of hostile.py:Floods a message of",
}


class Scene:
    """The tiny run's files, the hostile plugins, and a run in which they were isolated."""

    def __init__(self, folder: Path) -> None:
        self.tiny: Tiny = make_tiny(folder)
        self.cache = folder / "cache"
        self.file = folder / "hostile.py"
        self.file.write_text(
            HOSTILE.format(
                cache=str(self.cache),
                data=str(self.tiny.images),
                default_cache=str(default_cache()),
                parent=os.getpid(),
                secret="a word in the environment",
            )
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("escapes")
    patch = pytest.MonkeyPatch()
    patch.setenv("LEAKBENCH_CACHE", str(folder / "default-cache"))
    try:
        (folder / "default-cache").mkdir()
        (folder / "default-cache" / "file").touch()
        return Scene(folder)
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def isolated(scene: Scene) -> dict[str, Result]:
    """Attack -> its cell, in the order in which they ran in one run."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LEAKBENCH_SECRET", "a word in the environment")
    names = ["AtScores", "AtLabels", "Dies", "Crashes", "Hangs", "Rubbish", "Floods", "Prints", "Honest"]
    try:
        with here(True, scene.cache, scene.tiny.images), fixed_threads(1):
            targets = [f"{scene.file}:{name}" for name in names]
            first = results(scene.tiny, scene.cache, targets[:2])
            patch.setattr(server, "SILENCE", 3.0)
            return first | results(scene.tiny, scene.cache, targets[2:])
    finally:
        patch.undo()


TRIED = [
    line.strip().partition('":')[0][1:]
    for line in HOSTILE[HOSTILE.index("def attempts") : HOSTILE.index("class AtScores")].splitlines()
    if line.startswith('        "')
]


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("access", ["at-scores", "at-labels"])
def test_an_attack_does_not_reach(isolated: dict[str, Result], access: str, name: str) -> None:
    assert isolated[access].status == "ok", isolated[access].traceback
    assert isolated[access].outcome.findings[name] == 0


def test_the_same_attempts_work_without_isolation(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the table above would hold for attempts that can't succeed anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with here(False), fixed_threads(1):
        result = results(scene.tiny, tmp_path / "cache", [f"{scene.file}:AtScores"])["at-scores"]
    assert result.status == "ok", result.traceback
    found = result.outcome.findings
    scene.file.with_name("left").unlink(missing_ok=True)
    worked = {name for name in TRIED if found[name]}
    assert worked >= {
        "networks by gc", "images by gc and frames", "the run's objects by gc", "the run's modules", "victim._network",
        "victim.__dict__", "the data set", "the default cache", "digits by scikit-learn", "the parent's memory",
        "the parent's descriptors", "signal to the parent", "write beside the plugin",
    }  # fmt: skip


def test_labels_are_all_that_an_attack_with_labels_gets(isolated: dict[str, Result]) -> None:
    assert isolated["at-labels"].outcome.findings["scores"] == 0


@pytest.mark.long
def test_queries_are_counted_by_who_answers(scene: Scene, tmp_path: Path) -> None:
    with here(True, scene.cache), fixed_threads(1):
        assert attack(scene.tiny, tmp_path / "cache", f"{scene.file}:AtScores").cost.queries == 2
        with pytest.raises(Exception, match="at a lower cost than was counted"):
            attack(scene.tiny, tmp_path / "cache", f"{scene.file}:Denies")


@pytest.mark.long
def test_the_ledger_is_kept_by_who_hands_out(scene: Scene, tmp_path: Path) -> None:
    with here(True, scene.cache, tmp_path / "cache", scene.tiny.images), fixed_threads(1):
        assert built(scene.tiny, tmp_path / "cache", f"{scene.file}:Peeks").images_read == 3
        with pytest.raises(Exception, match="has read private images"):
            built(scene.tiny, tmp_path / "cache", f"{scene.file}:Smuggles")


@pytest.mark.long
def test_folders_nested_by_the_thousand_are_removed(scene: Scene, tmp_path: Path) -> None:
    with here(True, scene.cache) as isolation, fixed_threads(1):
        ended = results(scene.tiny, tmp_path / "cache", [f"{scene.file}:{name}" for name in ("Nests", "Honest")])
        assert {one.status for one in ended.values()} == {"ok"}
    assert not Path(isolation.scratch).exists()


@pytest.mark.long
def test_what_a_call_knew_answers_nothing_later(scene: Scene, tmp_path: Path) -> None:
    target = f"{scene.file}:Remembers"
    with here(True, scene.cache), fixed_threads(1):
        attack(scene.tiny, tmp_path / "cache", target)
        made_plugin("attack", target, {})
    with here(False), fixed_threads(1):
        attack(scene.tiny, tmp_path / "other", target)
        with pytest.raises(PluginError, match="it remembers"):
            made_plugin("attack", target, {})


@pytest.mark.parametrize("name", DEAD)
def test_a_process_that_goes_wrong_ends_its_own_cell(isolated: dict[str, Result], name: str) -> None:
    assert isolated[name].status == "failed"
    assert isolated[name].reason.startswith(DEAD[name]) and "\n" not in isolated[name].reason


def test_the_cells_after_it_are_computed(isolated: dict[str, Result]) -> None:
    assert {isolated[name].status for name in ("prints", "honest")} == {"ok"}


def test_nothing_is_left_running_or_lying_about(isolated: dict[str, Result], scene: Scene) -> None:
    assert isolated
    assert not list(scene.file.parent.glob("left"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [command for command in commands if b"leakbench.runtime.isolation" in command]

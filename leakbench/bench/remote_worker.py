"""A worker on another machine: how it is set up as the process that drives the run is, and what it computes.

Knows nothing of how it was started or how calls reach it. Plugins come with it: files by their content, registered
classes by the module that has them; both must be here what they are there, by the sha256 of their source.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from leakbench import registry
from leakbench.bench.executors import Result, plugins_of, run_task
from leakbench.bench.pipeline import Pipeline, Task
from leakbench.cells import AttackCell, BaseCell, Cell, JobCell, UtilityCell, Variant
from leakbench.data import default_data_folder
from leakbench.data.folder import PREFIX
from leakbench.errors import LeakBenchError, PluginError, StoreError, UsageError, described
from leakbench.paths import default_cache, remove_all
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.plugins import Isolation, isolating, source
from leakbench.runtime.process import check_device, tune_process
from leakbench.runtime.workspace import Settings

C = TypeVar("C", bound=BaseCell)

_SAY_EVERY = 0.5
"""seconds between two words of a worker about its stage"""
_LARGEST = 1 << 24
"""bytes of a plugin's file"""
_VARIABLES = "LEAKBENCH_"
"""how the environment variables begin that say where things are"""


@dataclass(frozen=True)
class Setup:
    """What a worker needs to be as the process that drives the run."""

    settings: Settings
    """all paths absolute"""
    folder: str
    """the working directory, which the paths in cells start from"""
    mark: str
    """the name of a file that the driving process keeps in the store's folder of locks"""
    variables: Mapping[str, str] = field(default_factory=dict)
    registered: Sequence[tuple[registry.Kind, str, str]] = ()
    plugins: Sequence[tuple[registry.Kind, str, str]] = ()
    """kind, name and sha256 of the source of each that is not built in"""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """path, as cells have it -> what is in it"""

    @classmethod
    def of_run(cls, cells: Sequence[Cell], settings: Settings, mark: str) -> Setup:
        """Of a run that this process drives. UsageError where a plugin can't be had by any other process."""
        plugins, files = [], dict[str, bytes]()
        for kind, name in sorted(plugins_of(cells)):
            if registry.is_built_in(kind, name) or name.startswith(PREFIX):
                continue
            if not registry.everywhere(kind, name):
                raise UsageError(
                    f"the {kind} {name!r} is known to this process alone, and no worker elsewhere can have it: "
                    "put it into a file"
                )
            if ".py:" in name:
                path = _file_of(name)
                files[path] = _content(path)
            elif name not in registry.entries(kind):
                continue  # the text of a graph
            plugins.append((kind, name, source(kind, name).digest))
        return cls(
            _absolute(settings),
            str(Path.cwd()),
            mark,
            {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)},
            registry.registrations(),
            plugins,
            files,
        )


class RemoteWorker:
    """One pipeline, kept warm, on one thread."""

    def __init__(self, setup: Setup, say: Callable[[str, int, int], None]) -> None:
        """Sets up this process, which does nothing else. ``say`` is told what stage is at (what, done, total).

        A LeakBenchError, which names this machine, where the store, a plugin, the device or the isolation that the run
        asks for can't be had here.
        """
        self._say, self._said = say, 0.0
        self._open = contextlib.ExitStack()
        self._home = tempfile.mkdtemp(prefix="leakbench-worker-")
        self._open.callback(remove_all, self._home)
        try:
            self._set_up(setup)
        except LeakBenchError as error:
            self.close()
            raise type(error)(f"worker on {platform.node()}: {error}") from None

    def _set_up(self, setup: Setup) -> None:
        os.environ.update(setup.variables)
        with contextlib.suppress(OSError):  # where it isn't here, files that cells name by it are missing, and say so
            os.chdir(setup.folder)
        _check_store(Path(setup.settings.cache), setup.mark)
        tune_process()
        settings = replace(setup.settings, device=check_device(setup.settings.device))
        settings = replace(settings, isolation=self._isolation(settings.isolation))
        self._moved = {path: self._at_hand(path, content) for path, content in setup.files.items()}
        for kind, name, target in setup.registered:
            registry.register(kind, name, target)
        self._open.enter_context(isolating(settings.isolation))
        for kind, name, digest in setup.plugins:
            self._check_plugin(kind, name, digest)
        self._pipeline = Pipeline(settings, self._progress)

    def run(self, task: Task, cell: JobCell) -> Result:
        """How a task ends here."""
        return run_task(self._pipeline, task, self._here(cell))

    def close(self) -> None:
        """Remove what this worker wrote outside of the store."""
        self._open.close()

    def _progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said > _SAY_EVERY:
            self._said = now
            self._say(what, done, total)

    def _isolation(self, asked: Isolation) -> Isolation:
        """The same on this machine: a folder of its own for temporary files, and its own defaults hidden, too."""
        if asked.reason:
            return asked
        if lacking := what_is_lacking():
            raise UsageError(f"plugins can't be isolated there ({lacking}): --no-isolate runs them beside the data")
        own = dict.fromkeys(str(path.absolute()) for path in (default_cache(), default_data_folder()))
        return replace(asked, hidden=tuple(dict.fromkeys((*asked.hidden, *own))), scratch=self._home)

    def _at_hand(self, path: str, content: bytes) -> str:
        """Where a plugin's file is here: in its place, or a copy."""
        with contextlib.suppress(OSError):
            if Path(path).stat().st_size == len(content) and Path(path).read_bytes() == content:
                return path
        copy = Path(self._home, hashlib.sha256(content).hexdigest(), Path(path).name)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)
        return str(copy)

    def _check_plugin(self, kind: registry.Kind, name: str, digest: str) -> None:
        try:
            here = source(kind, self._renamed(name)).digest
        except (LeakBenchError, OSError) as error:
            raise PluginError(f"the {kind} {registry.label(name)!r} is not there: {described(error)}") from None
        if here != digest:
            raise PluginError(f"the {kind} {registry.label(name)!r} is another version there: install the same one")

    def _here(self, cell: C) -> C:
        """The cell, with the files of its plugins where they are on this machine. Keys hold no folders of files."""
        if not self._moved:
            return cell
        changes: dict[str, object] = {
            "dataset": self._renamed(cell.dataset),
            "model": self._renamed(cell.model),
            "metrics": tuple(self._variant(metric) for metric in cell.metrics),
        }
        if isinstance(cell, UtilityCell):
            changes["defense"] = self._variant(cell.defense)
        if isinstance(cell, AttackCell):
            changes |= {"attack": self._variant(cell.attack), "public": self._renamed(cell.public)}
        return cell.model_copy(update=changes)

    def _variant(self, variant: Variant) -> Variant:
        return variant.model_copy(update={"target": self._renamed(variant.target)})

    def _renamed(self, name: str) -> str:
        if ".py:" not in name or _file_of(name) not in self._moved:
            return name
        path = _file_of(name)
        before, _, attribute = name.rpartition(f"{path}:")
        return f"{before}{self._moved[path]}:{attribute}"


def _file_of(name: str) -> str:
    """The path in the name of a plugin of a file."""
    path, of_file, _ = registry.in_file(name).partition(".py:")
    return path + of_file.removesuffix(":")


def _content(path: str) -> bytes:
    try:
        if Path(path).stat().st_size > _LARGEST:
            raise UsageError(
                f"the plugin file {path!r} is larger than {_LARGEST >> 20} MiB: workers elsewhere take none"
            )
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"can't read the plugin file {path!r}: {error.strerror}") from None


def _absolute(settings: Settings) -> Settings:
    """Their paths as they are for a process in another folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).absolute())

    return replace(
        settings,
        cache=str(Path(settings.cache).absolute()),
        local_cache=absolute(settings.local_cache),
        data=absolute(settings.data),
        inception=absolute(settings.inception),
        features=absolute(settings.features),
        judges=absolute(settings.judges),
    )


def _check_store(root: Path, mark: str) -> None:
    """StoreError where the store isn't the one of the process that drives the run, or can't be written."""
    if not (root / "locks" / mark).is_file():
        raise StoreError(f"{str(root)!r} is not the cache of this run there: mount its folder at that path")
    trial = root / "locks" / f"{mark.removesuffix('.part')}-{platform.node()}-{os.getpid()}.part"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise StoreError(f"can't write to the cache at {str(root)!r}: {error.strerror}") from None

"""Run a grid, audit a network, read a run, compare runs."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakbench import registry
from leakbench.api.results import ComparisonResult, RunResult
from leakbench.errors import UsageError
from leakbench.paths import checked_path

if TYPE_CHECKING:
    from torch import nn

    from leakbench.bench.backends import Backend
    from leakbench.bench.grid import GridConfig

Plugin = str | Callable[..., Any]
"""a name as the command line takes it, or a class or function of the caller's own"""
File = str | os.PathLike[str]


def run(
    defense: Plugin | Sequence[Plugin] | None = None,
    attack: Plugin | Sequence[Plugin] | None = None,
    *,
    suite: str | None = None,
    metric: Plugin | Sequence[Plugin] | None = None,
    dataset: Plugin | Sequence[Plugin] | None = None,
    model: Plugin | Sequence[Plugin] | None = None,
    set: Mapping[str, Any] | None = None,
    timesteps: int | Sequence[int] | None = None,
    preset: str | None = None,
    protocol: str | None = None,
    seeds: int | None = None,
    images_per_class: int | None = None,
    classes: int | None = None,
    controls: bool | None = None,
    null_networks: int | None = None,
    ann: File | None = None,
    weights: File | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    judges: File | None = None,
    public: str | None = None,
    precision: str | None = None,
    data: File | None = None,
    inception: File | None = None,
    features: File | None = None,
    cache: File | None = None,
    local_cache: File | None = None,
    out: File | None = None,
    device: str = "auto",
    executor: str | Backend = "local",
    address: str | None = None,
    jobs: int | None = None,
    isolate: bool = True,
    quiet: bool = False,
) -> RunResult:
    """Run defences against attacks, as ``leakbench run`` does, and write the run's folder.

    Every parameter is the option of that name (``leakbench run --help``), with its default and its checks; ``set`` is a
    mapping, as in ``{"privatesnn.epochs": [5, 20]}``. Where names of plugins are taken, so are classes and functions:
    they are registered by their own name (:func:`leakbench.register`). Classes of a notebook or a script, which other
    processes can't import, are run in this one, and the report says so: attacks and defences of files run in processes
    of their own, unless ``isolate`` is False.

    ``executor`` is a name or a :class:`leakbench.bench.backends.Backend` of the caller's own, which has its device.

    The same call continues an interrupted run: results are cached. Cells that fail are told as they do and counted in
    the result's ``failed``; what drops the name of a ``protocol`` is a warning. This process is set up for computing,
    as that of the command is: denormal numbers count as 0.

    Raises errors of :mod:`leakbench.errors`, each of one line, for whatever is wrong in the input; they name parameters
    as options. KeyboardInterrupt is raised after what was computed has been written.
    """
    options = _options(
        {"defense": defense, "attack": attack, "metric": metric, "dataset": dataset, "model": model},
        suite=suite, set=set, timesteps=timesteps, preset=preset, seeds=seeds, images_per_class=images_per_class,
        classes=classes, controls=controls, null_networks=null_networks, ann=ann, judges=judges, public=public,
        precision=precision,
    )  # fmt: skip

    from leakbench.session import run as session
    from leakbench.session.anns import OwnAnn, with_own_ann
    from leakbench.session.answers import check_ann

    own = OwnAnn(_path(weights, "--weights"), _numbers(mean), _numbers(std))
    for option, named in (("protocol", protocol), ("suite", suite), ("preset", preset)):
        if not isinstance(named, str | None):
            raise UsageError(f"--{option} must be a name, got {_kind(named)}")
    grid, departures = session.grid_of(options, protocol)
    for departure in departures:
        warnings.warn(departure, stacklevel=2)
    secret = own.files(grid.ann)
    where = _Places(data, inception, features, cache, local_cache)
    grid = with_own_ann(grid, own, where.path("data"), where.path("cache"))
    call = _call("run", {**options, **({"protocol": protocol} if protocol else {})})
    with _backend(executor, address, device) as backend:
        check_ann(grid, where.path("data"), backend.device)
        return _computed(grid, call, where, out, backend, jobs, isolate, quiet, secret)


def audit(
    snn: File | nn.Module,
    settings: File | Mapping[str, Any] | None = None,
    *,
    attack: Plugin | Sequence[Plugin] | None = None,
    metric: Plugin | Sequence[Plugin] | None = None,
    dataset: Plugin | None = None,
    model: str | None = None,
    set: Mapping[str, Any] | None = None,
    timesteps: int | None = None,
    preset: str | None = None,
    images_per_class: int | None = None,
    classes: int | None = None,
    controls: bool | None = None,
    ann: File | None = None,
    weights: File | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    judges: File | None = None,
    public: str | None = None,
    precision: str | None = None,
    data: File | None = None,
    inception: File | None = None,
    features: File | None = None,
    cache: File | None = None,
    local_cache: File | None = None,
    out: File | None = None,
    device: str = "auto",
    executor: str | Backend = "local",
    address: str | None = None,
    jobs: int | None = None,
    isolate: bool = True,
    quiet: bool = False,
) -> RunResult:
    """Attack a network as it is deployed, as ``leakbench audit`` does, and write the run's folder.

    ``snn`` is what ``--snn`` takes, or a module of SpikingJelly, snnTorch, Norse or sinabs itself; ``settings`` is the
    file that ``--settings`` names, or what it would hold: ``{"format": 1, "framework": "snntorch", "timesteps": 16}``.
    All other parameters are options of that name, and as for :func:`run`. Raises UsageError, too, where the network
    classifies test images hardly better than a guess.
    """
    options = _options(
        {"attack": attack, "metric": metric, "dataset": dataset, "model": model},
        set=set, timesteps=timesteps, preset=preset, images_per_class=images_per_class, classes=classes,
        controls=controls, ann=ann, judges=judges, public=public, precision=precision,
    )  # fmt: skip

    import torch
    from torch import nn

    from leakbench.foreign.settings import settings_of
    from leakbench.runtime.process import device_here
    from leakbench.session import audits
    from leakbench.session.anns import OwnAnn
    from leakbench.session.answers import check_ann, check_answers

    named = os.fspath(snn) if isinstance(snn, str | os.PathLike) else snn
    if not isinstance(named, str | nn.Module):
        raise UsageError(f"--snn must be a path, FILE.py:FUNCTION or a torch module, got {type(named).__name__}")
    said = settings_of(dict(settings), "settings") if isinstance(settings, Mapping) else _path(settings, "--settings")
    own = OwnAnn(_path(weights, "--weights"), _numbers(mean), _numbers(std))
    where = _Places(data, inception, features, cache, local_cache)
    with _backend(executor, address, device) as backend:
        network, grid = audits.audited(named, said, options, own, where.path("data"), where.path("cache"))
        name = audits.name_of(named)
        check_answers(network, name, grid.dataset[0], where.path("data"), torch.device(device_here(backend.device)))
        check_ann(grid, where.path("data"), backend.device)
        call = _call("audit", {"snn": name, **options})
        secret = own.files(options.get("ann"))
        return _computed(grid, call, where, out, backend, jobs, isolate, quiet, secret)


def _options(plugins: Mapping[registry.Kind, Plugin | Sequence[Plugin] | None], **others: Any) -> dict[str, Any]:
    """The options of a grid that are given: names of plugins, paths as text."""
    given: dict[str, Any] = {kind: _named(kind, one) for kind, one in plugins.items() if one is not None}
    given |= {name: os.fspath(one) if isinstance(one, os.PathLike) else one for name, one in others.items()}
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class _Places:
    """Where a run finds what it needs, as the parameters say it."""

    data: File | None
    inception: File | None
    features: File | None
    cache: File | None
    local_cache: File | None

    def path(self, name: str) -> Path | None:
        return _path(getattr(self, name), f"--{name.replace('_', '-')}")


@contextlib.contextmanager
def _backend(executor: str | Backend, address: str | None, device: str) -> Iterator[Backend]:
    from leakbench.bench.backends import backend_named

    if isinstance(executor, str):
        with backend_named(executor, address, device) as backend:
            yield backend
    elif isinstance(executor, type) or not all(hasattr(executor, name) for name in ("device", "workers", "executor")):
        raise UsageError(f"--executor must be a name or a Backend, got {_kind(executor)}")
    else:
        yield executor


def _computed(
    grid: GridConfig,
    call: str,
    where: _Places,
    out: File | None,
    backend: Backend,
    jobs: int | None,
    isolate: bool,
    quiet: bool,
    secret: Sequence[Path],
) -> RunResult:
    """The result of a grid, whose files are written; ``call`` stands in its record."""
    from leakbench.bench.run_folder import holds_run, records_in
    from leakbench.bench.suites import cells_of, check_used
    from leakbench.reports.files import read_record
    from leakbench.session import run as session
    from leakbench.session.estimate import say_if_long
    from leakbench.session.progress import reporter

    if not isinstance(device := backend.device, str):
        raise UsageError(f"--device must be a name, got {_kind(device)}")
    if isinstance(jobs, bool) or not isinstance(jobs, int | None):
        raise UsageError(f"--jobs must be a whole number, got {_kind(jobs)}")
    for name, flag in (("isolate", isolate), ("quiet", quiet)):
        if not isinstance(flag, bool):  # None, the default elsewhere, would switch isolation off
            raise UsageError(f"--{name} must be True or False, got {_kind(flag)}")
    folder = _path(out, "--out") or session.default_folder(grid)
    settings = session.settings_of(
        where.path("cache"),
        where.path("local_cache"),
        where.path("data"),
        where.path("inception"),
        where.path("features"),
        backend.device,
        grid,
    )
    with contextlib.ExitStack() as opened:
        settings = opened.enter_context(session.isolated(isolate, grid, settings, folder, secret))
        cells = cells_of(grid)
        if not holds_run(folder, grid):
            check_used(grid, cells)
        workers = backend.workers(cells, settings, jobs)
        told = () if quiet else say_if_long(cells, settings, workers)
        progress = opened.enter_context(reporter(quiet, told, workers))
        session.run(grid, cells, settings, folder, jobs, call, progress, backend.executor)
    files = records_in(folder)[0]
    return RunResult(folder, files, read_record(folder, files))


def _call(function: str, given: Mapping[str, Any]) -> str:
    """As it stands in the record."""
    return f"leakbench.{function}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def load(folder: File) -> RunResult:
    """The result of the run whose folder this is, without computing anything; UsageError where there is none."""
    from leakbench.reports.files import read_record
    from leakbench.session.compare import main_record

    path = checked_path(_file(folder, "folder"), "folder")
    files = main_record(path)
    return RunResult(path, files, read_record(path, files))


def compare(*runs: RunResult | File, anyway: bool = False, out: File | None = None) -> ComparisonResult:
    """Compare the defences of one or several runs, as ``leakbench compare`` does, and write the comparison's folder.

    ``runs`` are results or folders of runs. UsageError where they can't be compared, unless ``anyway``.
    """
    from leakbench.session.compare import compare as compare_folders

    if not runs:
        raise UsageError("compare needs a run: give results or folders of runs")
    folders = [one.folder if isinstance(one, RunResult) else _file(one, "runs") for one in runs]
    files = {one.folder: one.files for one in runs if isinstance(one, RunResult)}
    comparison, page = compare_folders(folders, anyway, _path(out, "--out"), files)
    return ComparisonResult(page.parent, comparison)


def _named(kind: registry.Kind, given: Plugin | Sequence[Plugin]) -> list[str]:
    """The names of plugins; what is no name is registered."""
    several = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for one in several:
        if not isinstance(one, str) and not callable(one):
            what = "functions" if kind in ("model", "dataset") else "classes"
            raise UsageError(f"--{kind} takes names and {what}, one or a list of them, and got {_kind(one)}")
    return [_registered(kind, one) if callable(one) else one for one in several]


def _registered(kind: registry.Kind, plugin: Callable[..., Any]) -> str:
    """The name of a class or function; one that comes with LeakBench has its name already."""
    name = str(getattr(plugin, "name", "") or getattr(plugin, "__name__", plugin))
    if not (registry.is_built_in(kind, name) and registry.load(kind, name) is plugin):
        registry.register(kind, name, plugin)
        registry.load(kind, name)  # whatever is done with it later would complain of something else
    return name


def _numbers(given: str | float | Sequence[float] | None) -> str | None:
    """As the command line takes them."""
    return None if given is None else ",".join(map(str, given)) if isinstance(given, list | tuple) else str(given)


def _path(given: File | None, option: str) -> Path | None:
    return None if given is None else checked_path(_file(given, option), option)


def _file(given: object, option: str) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{option} must be a path, got {_kind(given)}")
    return Path(given)


def _kind(given: object) -> str:
    """What a value is, in a word for a message: a long one would fill lines."""
    return f"{given!r}" if isinstance(given, str | int | float) else f"a {type(given).__name__}"

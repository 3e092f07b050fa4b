"""What the process of a plugin may read: interpreter, installed packages, LeakBench, the plugin, and nothing beside."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from leakbench.runtime.isolation.confinement import LIST, READ, WRITE, Grant

_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo",
    "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node", "/dev/urandom",
    "/dev/random", "/dev/zero",
)  # fmt: skip
"""what shared libraries, and those who ask for processor and memory, read"""
_INSTALLED = ("site-packages", "dist-packages")
_DATA_OF_PACKAGES = ("sklearn/datasets/data",)
"""below installed packages: where the digits are"""


def grants(
    plugin: Iterable[Path], searched: Iterable[Path], hidden: Sequence[str], scratch: Sequence[str]
) -> list[Grant]:
    """All of it, for a plugin of these files or folders. Of folders that are ``searched`` for them names are listed,
    and ``scratch`` folders may be written to.

    Nothing of ``hidden`` (files and folders) is in it, wherever it lies: of a folder around it all else is.
    """
    plugin = list(plugin)
    readable = [*interpreter(), *plugin, *(Path(path) for path in _SYSTEM)]
    real = dict.fromkeys(Path(os.path.realpath(path)) for path in readable)
    closed = [Path(os.path.realpath(path)) for path in (*hidden, *map(str, _data_of_packages(real)))]
    given = [grant for path in real for grant in _around(path, closed)]
    # a file that was named as the plugin is no secret, even where it lies beside data
    given += [(os.path.realpath(path), READ) for path in plugin if path.is_file()]
    given += [(os.path.realpath(path), LIST) for path in searched]
    return given + [(path, WRITE) for path in (*scratch, "/dev/null")]


@cache
def interpreter() -> tuple[Path, ...]:
    """Python's own library, the folders of installed packages, LeakBench's, and the libraries that they load.

    Other folders that are searched for modules, as that of a project, are not among them: all may lie there.
    """
    paths = {name: sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    library = Path(paths["stdlib"])
    searched = [Path(entry) for entry in sys.path if entry]
    found = [Path(path) for path in paths.values()]
    found += [path for path in searched if path.name in _INSTALLED or library in (path, *path.parents)]
    found += [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    found += [Path(sys.prefix, "pyvenv.cfg")]
    found += _packages("leakbench", "leakbench.attacks", "leakbench.defenses", "leakbench.reports")
    # of an interpreter outside of /usr: whatever else lies in these folders stays closed
    folders = [sysconfig.get_config_var("LIBDIR") or "", *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    found += [file for folder in folders if folder for file in Path(folder).glob("*.so*")]
    return tuple(path for path in dict.fromkeys(found) if path.exists())


def _packages(*names: str) -> Iterator[Path]:
    for name in names:
        spec = find_spec(name)
        if spec is not None:
            yield from (Path(folder) for folder in spec.submodule_search_locations or ())


def package_of(name: str) -> list[Path]:
    """The folders of a module's outermost package, or the module's file."""
    spec = find_spec(name.partition(".")[0])
    if spec is None:
        return []
    return [Path(p) for p in spec.submodule_search_locations or ([spec.origin] if spec.origin else [])]


def _data_of_packages(folders: Iterable[Path]) -> Iterator[Path]:
    for folder, data in product(folders, _DATA_OF_PACKAGES):
        for pattern in (data, f"python3*/*-packages/{data}", f"*-packages/{data}"):
            yield from folder.glob(pattern)


def _around(path: Path, hidden: Sequence[Path]) -> Iterator[Grant]:
    """All that lies at a path but for what is hidden: names are listed, which modules are found by."""
    if any(one in (path, *path.parents) for one in hidden):
        return
    inside = [one for one in hidden if path in one.parents]
    if not inside:
        yield str(path), READ
    else:
        yield str(path), LIST
        for child in path.iterdir():
            if not child.is_symlink():  # what it leads to may be hidden
                yield from _around(child, inside)

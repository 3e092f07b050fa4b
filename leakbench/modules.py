"""Modules that are found and read without being imported, and what a plugin in one consists of."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_STANDARD = tuple(Path(folder).resolve() for name in ("stdlib", "platstdlib") if (folder := sysconfig.get_path(name)))
_PACKAGES = frozenset(("site-packages", "dist-packages"))
"""folders that packages are installed into"""
_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)
"""in Python's order"""


def is_installed(path: Path) -> bool:
    """Whether a file or folder is of Python's own library, or of where packages are installed."""
    path = path.resolve()
    return bool(_PACKAGES & {*path.parts}) or any(path.is_relative_to(folder) for folder in _STANDARD)


def module_file(name: str) -> Path | None:
    """The file of a module, found without importing any of its packages; None where it has none."""
    top, *rest = name.split(".")
    module = sys.modules.get(name)
    if module is not None:
        file = vars(module).get("__file__")
        return Path(file) if file and Path(file).is_file() else None
    try:
        spec = find_spec(top)
    except (ImportError, AttributeError, ValueError):  # of a module without a spec, as __main__
        return None
    if spec is None:
        return None
    file, folders = spec.origin, [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in rest:
        file, folders = _inside(folders, part)
    return Path(file) if file and Path(file).is_file() else None


def _inside(folders: Sequence[Path], part: str) -> tuple[str | None, list[Path]]:
    """The file of a module of a package in these folders, and the folders of what is inside of that."""
    for folder in folders:
        for suffix in _SUFFIXES:
            if (package := folder / part / f"__init__{suffix}").is_file():
                return str(package), [package.parent]
        for suffix in _SUFFIXES:
            if (file := folder / f"{part}{suffix}").is_file():
                return str(file), []
    return None, [inner for folder in folders if (inner := folder / part).is_dir()]  # without an __init__.py


def source_digest(target: str, file: Path) -> str:
    """sha256 of the file of a module; where others of its package come with it, of that and of their names and sha256.

    ``target`` is "module:attribute" (or a module alone), ``file`` the module's. Others are the modules of its package
    that it imports, and those that they do, the packages around them, and those that the attribute is imported from, of
    whatever package. They are found by reading: where that does not show where the attribute is from, all files of the
    package count.
    """
    module, _, attribute = target.partition(":")
    found: dict[str, Path] = {}
    roots = [(module, file)]
    while attribute and (place := _defined(*roots[-1], attribute.partition(".")[0])) is not None:
        if place.module is None:
            found |= _whole_package(*roots[-1])
            break
        further = module_file(place.module)
        if further is None or (place.module, further) in roots:
            break
        roots.append((place.module, further))
        attribute = place.name
    for root in roots:
        found |= _package_files(*root)
    of_file = _read(found.pop(module)).digest
    if not found:
        return of_file
    listed = "".join(f"{name} {_read(path).digest}\n" for name, path in sorted(found.items()))
    return hashlib.sha256(f"{of_file}\n{listed}".encode()).hexdigest()


def _package_files(name: str, file: Path) -> dict[str, Path]:
    """A module and the modules of its package that are imported with it -> their files."""
    found: dict[str, Path] = {}
    waiting = [(name, file), *_packages_around(name)]
    while waiting:
        module, path = waiting.pop()
        if module in found:
            continue
        found[module] = path
        for imported in _imported(module, path):
            inner = module_file(imported)
            if inner is not None:
                waiting += [(imported, inner), *_packages_around(imported)]
    return found


def _packages_around(name: str) -> Iterator[tuple[str, Path]]:
    """Those that are imported before a module, and do something."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        one = ".".join(parts[:count])
        file = module_file(one)
        if file is not None and not _read(file).empty:
            yield one, file


def _whole_package(name: str, file: Path) -> dict[str, Path]:
    """All modules of the package that a module is of, by their path in it."""
    top = module_file(name.partition(".")[0])
    if top is None or top.stem != "__init__":
        return {name: file}
    return {str(path.relative_to(top.parent)): path for path in sorted(top.parent.rglob("*.py"))}


class _Place(NamedTuple):
    """Where something is imported from; without a module where reading does not show it."""

    module: str | None
    name: str


def _defined(module: str, file: Path, attribute: str) -> _Place | None:
    """Where a module has an attribute from; None where it makes it itself."""
    tree = _read(file).tree
    if tree is None:
        return _Place(None, attribute)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return None
        if isinstance(node, ast.Assign) and any(ast.unparse(one) == attribute for one in node.targets):
            return None
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == attribute:
                    return _Place(_absolute(node, module, file) or None, alias.name)
    return _Place(None, attribute)


def _imported(module: str, file: Path) -> Iterator[str]:
    """The modules of its own package that a module's import statements name."""
    tree = _read(file).tree
    package = module.partition(".")[0]
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, file)
            for alias in node.names if base.partition(".")[0] == package else ():
                inner = f"{base}.{alias.name}"
                yield inner if module_file(inner) is not None else base


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The module that an import is from; empty where it leads out of the outermost package."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.stem == "__init__" else module.split(".")[:-1]
    around = package[: max(0, len(package) + 1 - node.level)]
    return ".".join([*around, *([node.module] if node.module else [])]) if around else ""


class _File(NamedTuple):
    digest: str
    empty: bool
    tree: ast.Module | None
    """None where it is no Python that can be read"""


def _read(path: Path) -> _File:
    """A file's content as it is now; read again where its size or time is another."""
    status = path.stat()
    return _content(path, status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=4096)
def _content(path: Path, *_status: int) -> _File:
    content = path.read_bytes()
    tree = None
    if path.suffix == ".py":
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # it can't be imported either
            tree = None
    return _File(hashlib.sha256(content).hexdigest(), not content.strip(), tree)

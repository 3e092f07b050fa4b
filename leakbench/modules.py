"""Modules that are found and read without being imported, and what a plugin in one consists of."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import all_suffixes
from importlib.util import find_spec
from pathlib import Path

from leakbench.errors import PluginError

_STANDARD = tuple(Path(folder).resolve() for name in ("stdlib", "platstdlib") if (folder := sysconfig.get_path(name)))
_PACKAGES = frozenset(("site-packages", "dist-packages"))
"""folders that packages are installed into"""
_OURS = "leakbench"


def is_installed(path: Path) -> bool:
    """Whether a file or folder is of Python's own library, or of where packages are installed."""
    path = path.resolve()
    return bool(_PACKAGES & {*path.parts}) or any(path.is_relative_to(folder) for folder in _STANDARD)


def module_file(name: str) -> Path | None:
    """The file of a module, found without importing any of its packages; None where it has none."""
    top, *rest = name.split(".")
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
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
        for suffix in all_suffixes():
            if (package := folder / part / f"__init__{suffix}").is_file():
                return str(package), [package.parent]
        for suffix in all_suffixes():
            if (file := folder / f"{part}{suffix}").is_file():
                return str(file), []
    return None, [inner for folder in folders if (inner := folder / part).is_dir()]  # without an __init__.py


def source_digest(name: str, file: Path) -> str:
    """sha256 of a module's file; where modules of its author's come with it, of that and of their names and sha256.

    PluginError where one of them was edited since this process imported it and saw it here.
    """
    files = authors_files(name, file)
    digests = {module: _digest(module, path) for module, path in sorted(files.items())}
    of_file = digests.pop(name)
    if not digests:
        return of_file
    listed = "".join(f"{module} {digest}\n" for module, digest in digests.items())
    return hashlib.sha256(f"{of_file}\n{listed}".encode()).hexdigest()


_seen: dict[str, tuple[object, str]] = {}
"""module -> the spec that it was imported by, and the sha256 of its file when it was first looked at"""


def _digest(name: str, file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    spec = getattr(sys.modules.get(name), "__spec__", None)  # importlib.reload makes another
    if spec is not None:
        before, seen = _seen.setdefault(name, (spec, digest))
        if before is not spec:
            _seen[name] = spec, digest
        elif seen != digest:  # what computes is what was imported, and what is kept would bear the new file's name
            raise PluginError(f"{file.name} was edited since {name!r} was imported: reload it, or start Python anew")
    return digest


def authors_files(name: str, file: Path) -> Mapping[str, Path]:
    """A module and those of its author's that are imported with it -> their files.

    Those are modules of the same package, and outside of where packages are installed also those beside it, imported by
    this module or by one of them, and the packages around it. They are found by reading: a name that is put together
    when it runs is not seen.
    """
    found: dict[str, Path] = {}
    waiting = [(name, file), *_packages_around(name)]
    while waiting:
        module, path = waiting.pop()
        if module not in found:
            found[module] = path
            waiting += _authors(path.read_bytes(), module, path)
    return found


def _packages_around(name: str) -> Iterator[tuple[str, Path]]:
    """Those that are imported before a module, and do something."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        one = ".".join(parts[:count])
        file = module_file(one)
        if file is not None and file.read_bytes().strip():
            yield one, file


def _authors(content: bytes, module: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The modules that a module of this content imports and that are its author's as well, with their files."""
    for imported in _imported(content, module, path):
        if imported.partition(".")[0] == _OURS:
            continue
        file = module_file(imported)
        if file is not None and _is_the_authors(imported, file, module, path):
            yield from ((imported, file), *_packages_around(imported))


def _is_the_authors(one: str, file: Path, module: str, path: Path) -> bool:
    if one.partition(".")[0] == module.partition(".")[0]:
        return True
    root = _root(module, path)
    return not is_installed(root) and _root(one, file) == root


def _root(module: str, file: Path) -> Path:
    """The folder that a module's outermost package is found in."""
    return file.resolve().parents[module.count(".") + (file.stem == "__init__")]


def _imported(content: bytes, module: str, path: Path) -> Iterator[str]:
    """The modules that a file's import statements name."""
    try:
        tree = ast.parse(content) if path.suffix == ".py" else ast.Module([], [])
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # it can't be imported either
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, path)
            for alias in node.names if base else ():
                inner = f"{base}.{alias.name}"
                yield inner if module_file(inner) is not None else base


def _absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The module that an import is from; empty where it leads out of the outermost package."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    around = package[: max(0, len(package) + 1 - node.level)]
    return ".".join([*around, *([node.module] if node.module else [])]) if around else ""

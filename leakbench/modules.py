"""Modules that are found and read without being imported, and what a plugin in one consists of."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

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
    spec = find_spec(top)
    for number in range(2, len(rest) + 2):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest][:number]), list(spec.submodule_search_locations))
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def source_digest(name: str, file: Path) -> str:
    """sha256 of a module's file; where it imports modules of its author's, of that and of their names and sha256.

    Those are modules of the same package, and outside of where packages are installed also those beside it, imported by
    this module or by one of them. They are found by reading: a name that is put together when it runs is not seen.
    """
    found: dict[str, str] = {}
    waiting = [(name, file)]
    while waiting:
        module, path = waiting.pop()
        if module not in found:
            content = path.read_bytes()
            found[module] = hashlib.sha256(content).hexdigest()
            waiting += _authors(content, module, path)
    of_file = found.pop(name)
    if not found:
        return of_file
    listed = "".join(f"{module} {digest}\n" for module, digest in sorted(found.items()))
    return hashlib.sha256(f"{of_file}\n{listed}".encode()).hexdigest()


def _authors(content: bytes, module: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The modules that a module of this content imports and that are its author's as well, with their files."""
    for imported in _imported(content, module, path):
        parts = imported.split(".")
        for count in range(1, len(parts) + 1):
            one = ".".join(parts[:count])
            # the packages around the module itself are imported before it, whatever it does
            if one.partition(".")[0] == _OURS or (one != imported and module.startswith(f"{one}.")):
                continue
            file = module_file(one)
            if file is not None and _is_the_authors(one, file, module, path):
                yield one, file


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

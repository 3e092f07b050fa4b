"""What a class, a function or a network consists of: its code, and whatever that refers to.

For what no file says: a class of a notebook, of ``__main__``, or made inside of a function, where another helper, base
class, default, closure or constant makes another plugin, and a comment or another kernel does not; and for a network
that somebody built, whose thresholds may be tensors or plain attributes.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_STANDARD = tuple(Path(folder).resolve() for name in ("stdlib", "platstdlib") if (folder := sysconfig.get_path(name)))
_PACKAGES = frozenset(("site-packages", "dist-packages"))
"""folders that packages are installed into"""


def code_digest(target: Any) -> str:
    """sha256 of the code of a class or function with all that it refers to outside of installed packages; of a network
    (torch.nn.Module) also its tensors, its attributes, and those of its parts.

    Of what can't be described (an open file, other objects of installed classes) the type alone counts.
    """
    digest = hashlib.sha256()
    for part in _described(target, {}):
        digest.update(f"{len(part)} {part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _described(value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
        return
    if id(value) in seen:
        yield f"again {seen[id(value)][0]}"
        return
    seen[id(value)] = len(seen), value  # kept alive, so that no other one gets its id
    if isinstance(value, type):
        yield from _of_class(value, seen)
    elif isinstance(value, FunctionType):
        yield from _of_function(value, seen)
    elif isinstance(value, CodeType):
        yield from _of_code(value, seen)
    elif isinstance(value, Mapping):
        yield f"mapping of {len(value)}"
        for key, one in value.items():
            yield from _described(key, seen)
            yield from _described(one, seen)
    elif isinstance(value, list | tuple):
        yield f"sequence of {len(value)}"
        for one in value:
            yield from _described(one, seen)
    elif isinstance(value, set | frozenset):
        yield f"set {sorted(map(repr, value))}"
    else:
        yield from _of_object(value, seen)


def _of_class(value: type, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    yield f"class {value.__module__ if _is_installed(value) else ''} {value.__qualname__}"
    if _is_installed(value):
        return
    yield from _described(value.__bases__, seen)
    for name, one in sorted(vars(value).items()):
        special = name.startswith("__") and name.endswith("__")
        if not special or isinstance(one, FunctionType | property | classmethod | staticmethod) or name == "__slots__":
            yield name
            yield from _described(one, seen)
    for name, field in sorted(getattr(value, "__pydantic_fields__", {}).items()):
        yield f"{name} {field.annotation!r} {field.metadata!r}"
        yield from _described(field.default, seen)
        yield from _described(field.default_factory, seen)


def _of_function(value: FunctionType, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    yield f"function {value.__module__ if _is_installed(value) else ''} {value.__qualname__}"
    for cell in value.__closure__ or ():
        try:
            yield from _described(cell.cell_contents, seen)
        except ValueError:  # of a name that is not bound yet
            yield "nothing"
    if _is_installed(value):
        return
    yield from _of_code(value.__code__, seen)
    yield from _described(value.__defaults__, seen)
    yield from _described(value.__kwdefaults__, seen)
    for name in _names(value.__code__):
        if name in value.__globals__:
            yield name
            yield from _described(value.__globals__[name], seen)


def _of_code(value: CodeType, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    # neither file nor lines
    yield f"code {value.co_code.hex()} {value.co_flags} {value.co_argcount} {value.co_kwonlyargcount}"
    yield f"{value.co_names} {value.co_varnames} {value.co_freevars} {value.co_cellvars}"
    for one in value.co_consts:
        yield from _described(one, seen)


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function looks up, in nested functions as well."""
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _names(one)


def _of_object(value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    yield f"{type(value).__module__} {type(value).__qualname__}"
    if isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, property):
        yield from _described((value.fget, value.fset, value.fdel), seen)
    elif isinstance(value, classmethod | staticmethod | MethodType):
        yield from _described(value.__func__, seen)
    elif isinstance(value, functools.partial):
        yield from _described((value.func, value.args, value.keywords), seen)
    elif isinstance(value, functools.cached_property):
        yield from _described(value.func, seen)
    elif isinstance(value, BuiltinFunctionType):
        yield value.__qualname__
    elif _is_a(value, "numpy", "ndarray") or _is_a(value, "numpy", "generic"):
        yield f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif _is_a(value, "torch", "Tensor"):
        flat = value.detach().cpu().contiguous().flatten().view(sys.modules["torch"].uint8)
        yield f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(flat.numpy()).hexdigest()}"
    elif _is_a(value, "torch.nn", "Module"):
        parts = value._modules
        yield from _described(type(value), seen)
        for name, one in sorted(vars(value).items()):
            if "_hooks" in name:  # their numbers differ from process to process
                yield from _described(list(one.values()) if isinstance(one, Mapping) else None, seen)
            elif one is not parts and name != "training":
                yield name
                yield from _described(one, seen)
        for name, one in parts.items():
            yield name
            yield from _described(one, seen)
    elif hasattr(value, "__wrapped__"):
        yield from _described(value.__wrapped__, seen)
    elif not _is_installed(type(value)):
        yield from _described(type(value), seen)
        yield from _described(getattr(value, "__dict__", None), seen)


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether it is of a class of a package that is loaded only where somebody uses it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _is_installed(value: Any) -> bool:
    """Whether a class or function is of a package, and not the user's."""
    name = getattr(value, "__module__", "") or ""
    if name in sys.builtin_module_names or name.partition(".")[0] == "leakbench":
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name == "__main__":
        return False
    path = Path(file).resolve()
    return bool(_PACKAGES & {*path.parts}) or any(path.is_relative_to(folder) for folder in _STANDARD)

"""What a class, a function or a network consists of: its code, and whatever that refers to.

For what no file says: a class of a notebook, of ``__main__``, or made inside of a function, where another helper, base
class, default, closure or constant makes another plugin, and a comment or another kernel does not; and for a network
that somebody built, whose thresholds may be tensors or plain attributes.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from leakbench.errors import PluginError
from leakbench.modules import is_installed, source_digest

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_LOOKED_UP = frozenset(("LOAD_GLOBAL", "LOAD_NAME"))
_MANGLED = re.compile(r"___torch_mangle_\d+")
"""in the code of compiled networks: a number that a process counts"""
_ADDRESS = " at 0x"
"""in the repr of what has none of its own"""

_looked_at: dict[str, tuple[object, str]] = {}
"""module -> the spec that it was imported by, and its digest when it was first looked at"""
_Seen = dict[int, tuple[int, Any]]
"""id -> its number, and the object, which is kept alive so that no other one gets its id"""


def code_digest(target: Any) -> str:
    """sha256 of the code of a class or function with all that it refers to outside of installed packages; of a network
    (torch.nn.Module) also its tensors, its attributes, and those of its parts.

    Of other objects of installed classes their repr counts, where it has no address, else the class alone. PluginError
    where more is referred to than can be followed, or a tensor whose values can't be read.
    """
    try:
        return _digest(target)
    except RecursionError:
        raise PluginError(f"{type(target).__name__} refers to more than can be followed: put it into a file") from None


def _digest(target: Any) -> str:
    digest = hashlib.sha256()
    for part in _described(target, {}):
        digest.update(f"{len(part)} {part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _described(value: Any, seen: _Seen) -> Iterator[str]:
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
        return
    if id(value) in seen:
        yield f"again {seen[id(value)][0]}"
        return
    seen[id(value)] = len(seen), value
    if isinstance(value, type):
        yield from _of_class(value, seen)
    elif isinstance(value, FunctionType):
        yield from _of_function(value, seen)
    elif isinstance(value, CodeType):
        yield from _of_code(value, seen)
    elif isinstance(value, dict | MappingProxyType):
        yield f"mapping of {len(value)}"
        for key, one in value.items():
            yield from _described(key, seen)
            yield from _described(one, seen)
    elif isinstance(value, list | tuple):
        yield f"sequence of {len(value)}"
        for one in value:
            yield from _described(one, seen)
    elif isinstance(value, set | frozenset):
        yield f"set {sorted(map(_digest, value))}"
    else:
        yield from _of_object(value, seen)


def _of_class(value: type, seen: _Seen) -> Iterator[str]:
    yield f"class {_name(value)}"
    if _is_installed(value):  # its bases need not be: packages make classes of the user's
        yield from _described([base for base in value.__mro__ if not _is_installed(base)], seen)
        return
    yield from _described(value.__bases__, seen)
    for name, one in sorted(vars(value).items()):
        special = name.startswith("__") and name.endswith("__")
        if not special or isinstance(one, FunctionType | property | classmethod | staticmethod) or name == "__slots__":
            yield name
            yield from _described(one, seen)
    for name, field in sorted(getattr(value, "__pydantic_fields__", {}).items()):
        yield f"{name} {field.annotation!r}"
        yield from _described((list(field.metadata), field.default, field.default_factory), seen)


def _of_function(value: FunctionType, seen: _Seen) -> Iterator[str]:
    yield f"function {_name(value)}"
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
    for name in _globals(value.__code__):
        if name in value.__globals__:
            yield name
            yield from _described(value.__globals__[name], seen)


def _of_code(value: CodeType, seen: _Seen) -> Iterator[str]:
    # neither file nor lines
    yield f"code {value.co_code.hex()} {value.co_flags} {value.co_argcount} {value.co_kwonlyargcount}"
    yield f"{value.co_names} {value.co_varnames} {value.co_freevars} {value.co_cellvars}"
    for one in value.co_consts:
        yield from _described(one, seen)


def _globals(code: CodeType) -> list[str]:
    """The global names that a function reads, in nested functions as well; each once."""
    names = [step.argval for step in dis.get_instructions(code) if step.opname in _LOOKED_UP]
    nested = [name for one in code.co_consts if isinstance(one, CodeType) for name in _globals(one)]
    return list(dict.fromkeys([*names, *nested]))


def _of_object(value: Any, seen: _Seen) -> Iterator[str]:
    kind = type(value)
    yield f"a {_name(kind)}"
    if isinstance(value, ModuleType):
        yield from _of_module(value)
    elif isinstance(value, property):
        yield from _described((value.fget, value.fset, value.fdel), seen)
    elif isinstance(value, classmethod | staticmethod):
        yield from _described(value.__func__, seen)
    elif isinstance(value, MethodType):
        yield from _described((value.__func__, value.__self__), seen)
    elif isinstance(value, functools.partial | functools.partialmethod):
        yield from _described((value.func, value.args, value.keywords), seen)
    elif isinstance(value, functools.cached_property):
        yield from _described(value.func, seen)
    elif _is_a(value, "numpy", "ndarray") or _is_a(value, "numpy", "generic"):
        yield f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif _is_a(value, "torch", "Tensor"):
        yield _of_tensor(value)
    elif _is_a(value, "torch.nn", "Module"):
        yield from _of_network(value, seen)
    elif (wrapped := inspect.getattr_static(value, "__wrapped__", None)) is not None:
        yield from _described(wrapped, seen)
    elif not _is_installed(kind):
        slots = [name for base in kind.__mro__ for name in _slots(base)]
        held = getattr(value, "__dict__", {})
        yield from _described((kind, held, [getattr(value, name, None) for name in slots]), seen)
    elif dataclasses.is_dataclass(value):
        yield from _described([getattr(value, field.name, None) for field in dataclasses.fields(value)], seen)
    elif kind.__module__ != "os":  # whose environment is another in each process
        yield _repr(value)


def _of_module(value: ModuleType) -> Iterator[str]:
    """By its name, and where it is the user's by its file and those of its package that it imports."""
    yield value.__name__ if _is_installed_module(value.__name__) else value.__name__.rpartition(".")[2]
    file = getattr(value, "__file__", None)
    if file is not None and not _is_installed_module(value.__name__) and Path(file).is_file():
        digest = source_digest(value.__name__, Path(file))
        spec, seen = _looked_at.setdefault(value.__name__, (value.__spec__, digest))
        if spec is not value.__spec__:  # importlib.reload makes another
            _looked_at[value.__name__] = value.__spec__, digest
        elif spec is not None and seen != digest:
            # what computes is what was imported, and what is kept would bear the new file's name
            raise PluginError(
                f"the module {value.__name__!r} was edited since it was imported: start Python anew, or reload it and "
                "what imports it"
            )
        yield digest


def _of_tensor(value: Any) -> str:
    about = f"{value.dtype} {value.layout}"
    if value.is_meta or sys.modules["torch"].nn.parameter.is_lazy(value):  # it has no values yet
        return about
    try:
        # whole numbers alone say nothing of their scale
        value = value.dequantize() if value.is_quantized else value
        dense = value.detach() if value.layout == sys.modules["torch"].strided else value.detach().to_dense()
        flat = dense.resolve_conj().resolve_neg().cpu().contiguous().flatten().view(sys.modules["torch"].uint8)
        return f"{about} {tuple(value.shape)} {hashlib.sha256(flat.numpy()).hexdigest()}"
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:  # two of them would look alike
        raise PluginError(f"a tensor of {about} can't be read: keep its values in a plain one") from error


def _of_network(value: Any, seen: _Seen) -> Iterator[str]:
    yield from _described(type(value), seen)
    for name, one in sorted(vars(value).items()):
        if "_hooks" in name:  # their numbers differ from process to process
            yield from _described(list(one.values()) if isinstance(one, dict) else None, seen)
        elif name not in ("_modules", "training"):
            yield name
            yield from _described(one, seen)
    if _is_a(value, "torch.jit", "ScriptModule"):  # which keeps nothing of it in Python
        yield _MANGLED.sub("", str(getattr(value, "code", "")))
    for name, one in sorted(value.state_dict().items()):
        yield name
        yield from _described(one, seen)
    for name, one in value.named_children():
        yield name
        yield from _described(one, seen)


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # an object's own code
        return ""
    return "" if _ADDRESS in text else text


def _name(value: type | FunctionType) -> str:
    """With the module where it is of a package: one of the user's may lie anywhere."""
    return f"{value.__module__} {value.__qualname__}" if _is_installed(value) else value.__qualname__


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether it is of a class of a package that is loaded only where somebody uses it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _is_installed(value: Any) -> bool:
    """Whether a class or function is of a package, and not the user's."""
    return _is_installed_module(getattr(value, "__module__", "") or "")


def _is_installed_module(name: str) -> bool:
    if name in sys.builtin_module_names or name.partition(".")[0] == "leakbench":
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name == "__main__":
        return False
    return is_installed(Path(file))

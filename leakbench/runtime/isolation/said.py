"""What is read of a plugin's messages: forms that they are checked against, and errors that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from leakbench import errors
from leakbench.errors import LeakBenchError, printable
from leakbench.models.untrusted import NetworkRecord
from leakbench.runtime.isolation.messages import Broken, Message

M = TypeVar("M", bound=BaseModel)
Whole = Annotated[int, Field(ge=0, le=2**62)]
Text = Annotated[str, Field(max_length=1000)]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that can't be printed")
    return text


Name = Annotated[Text, AfterValidator(_printable)]
Parameters = Annotated[dict[Name, JsonValue], Field(max_length=1000)]


class Said(BaseModel):
    """Base of what is read of a plugin's messages."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Parameter(Said):
    name: Name
    described: bool


class Member(Said):
    name: Name
    version: int
    params: Parameters


class Description(Said):
    """What a plugin says of its class."""

    name: Name
    version: int
    cites: Annotated[str, Field(max_length=10_000)]
    doc: Annotated[str, Field(max_length=100_000)]
    presets: Annotated[dict[Name, Parameters], Field(max_length=100)]
    parameters: Annotated[list[Parameter], Field(max_length=1000)]
    leakage: Name
    needs: Annotated[int, Field(ge=0, le=3)]
    """0 of a defence"""
    effort: Name
    ensemble: bool
    uses_public: bool
    uses_references: bool
    uses_population: bool
    uses_synthetic: bool
    asks_of: Literal["training", "conversion", ""]
    """empty of all but attacks on members"""
    spiking: bool
    members: Annotated[list[Member], Field(max_length=1000)]


EQUIPMENT = ("uses_references", "uses_population", "uses_synthetic")
"""what attacks on members say that they use"""


class Made(Said):
    """What a plugin says of itself with parameters."""

    params: Parameters
    changed: Parameters
    anytime: bool
    takes_timesteps: bool


class Raised(Said):
    error: Name
    text: str
    at: Text
    traceback: Annotated[str, Field(max_length=30_000)]


class Ended(Said):
    asked: Annotated[list[Annotated[int, Field(ge=1, le=3)]], Field(max_length=3)] = []
    changed: Annotated[list[Name], Field(max_length=100)] = []


class Found(Said):
    findings: Annotated[dict[Name, str], Field(max_length=10_000)]


class DefenseSaid(Found):
    network: NetworkRecord


class AttackSaid(Found):
    queries: Whole
    gradient_steps: Whole
    returned: Name
    student: NetworkRecord | None = None


class Asks(Said):
    """A question to the victim, or to an open reference network."""

    opening: Whole | None = None


class Opens(Said):
    """A reference network is wanted, and openings of some are no longer used."""

    reference: Whole
    closed: Annotated[list[Whole], Field(max_length=10_000)]


class Progressed(Said):
    what: str
    done: Whole
    total: Whole


class Warned(Said):
    line: Text


class LoopNamed(Said):
    name: Name
    last: bool = False


class Shares(Said):
    name: Annotated[Name, Field(min_length=1, max_length=100)]
    version: int
    params: dict[str, JsonValue]


def read(kind: type[M], head: Mapping[str, Any]) -> M:
    """A message's head as what it should be; Broken where it is something else."""
    try:
        return kind.model_validate(dict(head))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Broken(f"sent something else than was asked for ({printable(where)[:100]}: {first['msg']})") from None


_CLOSED = (
    "isolated, a plugin has installed packages and its own file or package, and starts no process: docs/isolation.md"
)


def raise_as_said(message: Message) -> NoReturn:
    """What a plugin raised, with its traceback as a note. LeakBench's own errors are what they were."""
    said = read(Raised, message.head)
    text = said.text.partition("\n")[0][:2000]
    if any(one in text for one in ("ModuleNotFoundError", "FileNotFoundError", "PermissionError")):
        text += f" ({_CLOSED})"
    error = error_named(said.error, text)
    error.where = printable(said.at)
    if said.traceback:
        error.add_note(f"In the plugin's process:\n{said.traceback}")
    raise error


ERRORS: Mapping[str, type[LeakBenchError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, LeakBenchError) and name != "UnknownName"
}


def error_named(name: str, text: str) -> LeakBenchError:
    """One of LeakBench's errors by its name; a PluginError where it is none."""
    return ERRORS.get(name, errors.PluginError)(text)

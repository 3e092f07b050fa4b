"""Entries of a leaderboard: what a run that follows a protocol says of one defence, or of one attack that breaks it.

An entry is a file of a few KB that anybody may have written: every text and list has a limit, every number is finite
and in its range, and nothing in it names a file or a command.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

import leakbench
from leakbench import registry
from leakbench.bench.protocols import PROTOCOLS, protocol_named
from leakbench.errors import UsageError, printable
from leakbench.metrics.accuracy import MOST_LOST, lost_too_much
from leakbench.metrics.class_votes import SIGNIFICANT
from leakbench.metrics.metric import NAME
from leakbench.records import Status, Validity, VerdictOutcome

ENTRY_SCHEMA: Final = 1
MOST_BYTES = 128 << 10
BUILT_IN = "built-in"
_LARGEST = 1e15
"""of any number: no cost, count or ratio that was measured comes near"""
CLASSES: Mapping[str, int] = {"digits": 10, "fashion-mnist": 10}
"""of the protocols' data sets; all are attacked"""
NEARLY = 0.9
"""share of the worst case that a valid attack must have where the worst one is not valid: docs/verdicts.md"""
_HALF = 0.5
"""of the scale: an attack with a lower limit of that draws classes for certain"""


def _checked_link(url: str) -> str:
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        plain = False
    if not plain or not url.isprintable() or re.search(r"[\s\\\"'<>`]", url):
        raise ValueError(f"must be an https:// address without spaces, quotes and passwords, got {url[:80]!r}")
    return url


def _checked_protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name[:80]!r}: available: {', '.join(PROTOCOLS)}")
    return name


def _not_newer(version: str) -> str:
    if version_numbers(version) > version_numbers(leakbench.__version__):
        raise ValueError(
            f"run with LeakBench {version}, this is {leakbench.__version__}: use that version or a newer one"
        )
    return version


def _checked_time(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise ValueError(f"must be a date and time with its zone, as 2026-01-02T03:04:05+00:00, got {text!r}")
    if when > datetime.now(UTC) + timedelta(days=1):
        raise ValueError(f"lies in the future: {text}")
    return text


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"a plugin's name must be of ASCII letters, digits, _ and -, a letter first, got {name!a:.80}")
    return name


def version_numbers(version: str) -> list[int]:
    """By which versions are ordered."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=200)]
Line = Annotated[str, Field(max_length=2000)]
PluginName = Annotated[Name, AfterValidator(_checked_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
Version = Annotated[str, Field(pattern=r"^\d{1,5}\.\d{1,5}\.\d{1,5}([.+-]?[A-Za-z0-9.+-]{0,40})\z")]
Source = Annotated[str, Field(pattern=r"^(built-in|[0-9a-f]{64})\z")]
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Amount = Annotated[float, Field(ge=0, le=_LARGEST)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=int(_LARGEST))]
Scalar = Annotated[str, Field(max_length=500)] | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | None
Params = Annotated[
    dict[Name, Scalar | Annotated[list[Scalar], Field(max_length=100)]], Field(max_length=100)
]  # fmt: skip
Access = Literal["LABELS", "SCORES", "WEIGHTS"]
Ran = Literal["built-in", "isolated", "not isolated", "unknown"]
_ACCESS: tuple[Access, ...] = get_args(Access)
LinkKind = Literal["code", "paper"]
Links = dict[LinkKind, Annotated[str, Field(max_length=500), AfterValidator(_checked_link)]]
Keys = Annotated[list[Digest], Field(max_length=1000)]

ROUNDING = 1e-6
"""between two readings of one number"""


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Measured(_Checked):
    """A value with its 95 % interval, either end of which may not be known."""

    value: Number
    low: Number | None = None
    high: Number | None = None
    n: Count = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.low is not None and self.low > self.value) or (self.high is not None and self.high < self.value):
            raise ValueError(f"the interval must hold the value: got {self.low}, {self.value}, {self.high}")
        return self


class Share(Measured):
    """A value from 0 to 1, as are both ends of its interval."""

    value: Probability
    low: Probability | None = None
    high: Probability | None = None


class Positive(Measured):
    """A value that is not negative; Student's interval may reach below."""

    value: Amount


class Difference(Measured):
    """Of two shares."""

    value: Annotated[float, Field(ge=-1, le=1)]


class MadeBy(_Checked):
    """The environment that artifacts of the run were made in."""

    python: Text
    leakbench: Text
    torch: Text
    numpy: Text
    numba: Text
    processor: Text
    device: Text
    threads: Text
    artifacts: Count


class RunFacts(_Checked):
    """The run that the numbers come from."""

    leakbench: Annotated[Version, AfterValidator(_not_newer)]
    created: Annotated[str, Field(max_length=40), AfterValidator(_checked_time)]
    environments: Annotated[list[MadeBy], Field(min_length=1, max_length=20)]


class Plugin(_Checked):
    """What was run: enough to tell whether another run is of the same."""

    name: PluginName
    label: Name = Field(description="in its run: the name, with [param=value] where it was set or varied")
    origin: Name = Field(description="built-in, a package, or a file's name with the class in it")
    source: Source = Field(description="sha256 of the file that holds it, or built-in")
    version: Count | None
    params: Params
    given: Annotated[list[Name], Field(max_length=100)] = Field([], description="params that were set by hand")
    ran: Ran = Field("unknown", description="whether it could reach the run's private images and evaluation models")
    cites: Line = ""

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        if self.label != self.name and not (self.label.startswith(f"{self.name}[") and self.label.endswith("]")):
            raise ValueError(f"the label must be {self.name!r}, with what was set in brackets, got {self.label[:80]!r}")
        if not self.label.isprintable():
            raise ValueError(f"the label must be printable, got {self.label[:80]!r}")
        return self

    def check_built_in(self, kind: registry.Kind) -> None:
        """ValueError where it says that it is LeakBench's and is not, or takes the name of what is."""
        if (self.source == BUILT_IN) != (self.name in registry.built_in(kind)):
            known = "is no built-in" if self.source == BUILT_IN else "is the name of a built-in"
            raise ValueError(f"{self.name!r} {known} {'defence' if kind == 'defense' else kind}")

    @property
    def identity(self) -> str:
        """What two runs of it have in common."""
        return json.dumps(self.model_dump(include={"name", "source", "version", "params"}), sort_keys=True)

    @property
    def settings(self) -> list[str]:
        """Words of the command that set its parameters as they were."""
        values = {name: self.params[name] for name in self.given if name in self.params}
        return [word for name, value in values.items() for word in ("--set", f"{self.name}.{name}={_text(value)}")]

    @property
    def argument(self) -> str:
        """How it is named on the command line."""
        return self.origin if ".py:" in self.origin else self.name


class AttackResult(_Checked):
    """What one attack got out of the defence, all networks together."""

    plugin: Plugin
    access: Access
    status: Status
    validity: Validity | None
    reason: Line = ""
    leaks: bool
    index: Share | None
    queries: Amount | None = Field(None, description="images that the network answered, for all images")
    gradient_steps: Amount | None = Field(None, description="an image")
    seconds: Amount | None = None


class AccessResult(_Checked):
    """The worst case of the attacks that need no more access."""

    access: Access
    attack: Text
    index: Share | None
    classes: Count = Field(description="that leak significantly")
    cost_to_half: Positive | None = Field(description="gradient steps and queries an image, for half of the scale")
    area: Share | None = Field(description="under the index over the log cost, from 1 to 10,000")


class VerdictFacts(_Checked):
    outcome: VerdictOutcome
    reason: Line
    p: Probability | None
    networks: Count
    classes: Count = Field(description="that were attacked")
    named: Annotated[list[Name], Field(max_length=1000)] = Field(description="classes that leak significantly")
    missing: Annotated[list[Line], Field(max_length=50)]


class Artifacts(_Checked):
    """Keys in the store, by which a claim can be checked against one."""

    anns: Annotated[Keys, Field(min_length=1)]
    victims: Annotated[Keys, Field(min_length=1)]
    images: Annotated[dict[Name, Keys], Field(max_length=100)] = Field(description="an attack's label -> its images")


class _Entry(_Checked):
    schema_version: Literal[1] = ENTRY_SCHEMA
    protocol: Annotated[str, AfterValidator(_checked_protocol)]
    defense: Plugin
    run: RunFacts
    artifacts: Artifacts
    links: Links = {}

    @model_validator(mode="after")
    def _networks(self) -> Self:
        """That there are no more networks than the protocol has, each with keys of its own."""
        most = protocol_named(self.protocol).seeds
        images = {f"images of {label}": keys for label, keys in self.artifacts.images.items()}
        for role, keys in {"anns": self.artifacts.anns, "victims": self.artifacts.victims, **images}.items():
            if not 1 <= len(set(keys)) == len(keys) <= most:
                right = f"{self.protocol} has {most} networks: 1 to {most} different keys are needed"
                raise ValueError(f"artifacts, {role}: {right}, got {len(keys)}")
        if len(self.artifacts.anns) != len(self.artifacts.victims):
            raise ValueError("artifacts: there must be as many anns as victims")
        return self

    def _check_images(self, results: Sequence[AttackResult]) -> None:
        """ValueError where keys of images are of no attack here, or an index is over more networks than have any."""
        images, classes = self.artifacts.images, self._classes
        if strange := images.keys() - {one.plugin.label for one in results}:
            raise ValueError(f"artifacts: images of {min(strange)}, which is no attack of the entry")
        for one in results:
            networks = len(images.get(one.plugin.label, ()))
            if one.index and one.index.n > classes * networks:
                have = f"n = {one.index.n}, keys of images are of {networks} networks with {classes} classes"
                raise ValueError(f"{one.plugin.label}: its index has {have}")

    @property
    def _classes(self) -> int:
        return CLASSES[protocol_named(self.protocol).dataset]

    @property
    def key(self) -> tuple[str, ...]:
        """What two entries of one defence have in common."""
        params = json.dumps(self.defense.params, sort_keys=True)
        # a file's digest says more than the version that its author keeps by hand
        version = str(self.defense.version) if self.defense.source == BUILT_IN else ""
        return self.protocol, self.defense.name, self.defense.source, version, params

    def _command(self, attacks: Sequence[Plugin]) -> str:
        words = ["leakbench", "run", "--protocol", self.protocol, "--defense", self.defense.argument]
        words += self.defense.settings
        come_along = {name for attack in attacks for name in registry.together("attack", attack.name)[1:]}
        for attack in (one for one in attacks if one.name not in come_along):
            words += ["--attack", attack.argument, *attack.settings]
        return shlex.join(words)


class DefenseEntry(_Entry):
    """A defence, measured under a protocol."""

    kind: Literal["defense"] = "defense"
    accuracy: Share
    accuracy_drop: Difference = Field(description="accuracy of the ANN less that of the defence")
    energy_ratio: Positive | None = Field(description="E(ANN) / E(SNN), INT32")
    training_images_read: Positive | None
    timesteps: Annotated[list[Count], Field(max_length=100)] = Field(
        [], description="T of its networks; empty where nothing spikes, or in an entry that says nothing of it"
    )
    verdict: VerdictFacts
    attack: Text = Field(description="the worst case")
    index: Share | None = Field(description="of the worst case")
    access: Annotated[list[AccessResult], Field(max_length=3)]
    attacks: Annotated[list[AttackResult], Field(min_length=1, max_length=100)]
    comparable: bool = Field(description="whether it may be ranked")
    why: Line = Field(description="why it may not; empty where it may")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.comparable and self.index is None:
            raise ValueError("comparable without an index")
        if self.comparable == bool(self.why):
            raise ValueError("why must say why it is not comparable, and be empty where it is")
        run = {one.plugin.identity for one in self.attacks}
        for required in _required(self.protocol):
            if required.identity not in run:
                raise ValueError(f"{self.protocol} requires the attack {required.name} in version {required.version}")
        self.defense.check_built_in("defense")
        for one in self.attacks:
            one.plugin.check_built_in("attack")
        self._measured()
        _check_worst("the worst case", self.attack, self.index, self._telling("WEIGHTS"))
        if self.verdict.outcome == "resists":
            self._resisting()
        if self.comparable:
            self._counted()
        self._by_access()
        return self

    def _measured(self) -> None:
        """That the verdict is of the protocol's classes and of networks that there are, and says one thing."""
        facts, networks = self.verdict, len(self.artifacts.victims)
        if facts.networks > networks:
            raise ValueError(f"verdict.networks: {facts.networks}, artifacts have the keys of {networks} victims")
        if facts.classes != (attacked := self._classes if facts.networks else 0):
            right = f"{self.protocol} attacks {attacked} of {facts.networks} networks"
            raise ValueError(f"verdict.classes: {right}, got {facts.classes}")
        if len(set(facts.named)) < len(facts.named) or len(facts.named) > facts.classes:
            raise ValueError(f"verdict.named: at most {facts.classes} different classes, got {len(facts.named)}")
        if facts.outcome == "leaks" and (facts.p is None or facts.p > SIGNIFICANT):
            raise ValueError(f"it leaks at p = {facts.p}: at most {SIGNIFICANT} is significant")
        labels = [one.plugin.label for one in self.attacks]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"two attacks have the label {twice[0]}")
        self._check_images(self.attacks)
        for one in self.attacks:
            if one.index and one.index.n > facts.networks * facts.classes:
                have = f"{facts.networks} networks and {facts.classes} classes"
                raise ValueError(f"{one.plugin.label}: its index has n = {one.index.n}, the verdict is of {have}")

    def _telling(self, access: Access) -> dict[str, Share]:
        """Label -> index of the attacks that need no more access; what is invalid says nothing of the defence."""
        within = _ACCESS[: _ACCESS.index(access) + 1]
        telling = (one for one in self.attacks if one.access in within and one.validity not in (None, "invalid"))
        return {one.plugin.label: one.index for one in telling if one.index}

    def _by_access(self) -> None:
        """That attackers with so much access get what the attacks do that need no more, and with all of it the worst
        case."""
        if tuple(one.access for one in self.access) != _ACCESS:
            raise ValueError(f"access must have one row each of {', '.join(_ACCESS)}, in this order")
        named = len(self.verdict.named)
        for one in self.access:
            _check_worst(f"access {one.access}", one.attack, one.index, self._telling(one.access))
            if one.classes > (self.verdict.classes if self.verdict.outcome == "leaks" else 0):
                raise ValueError(
                    f"access {one.access}: {one.classes} classes leak, the verdict: {self.verdict.outcome}"
                )
        weights = self.access[-1]
        if weights.classes != named:
            raise ValueError(f"access WEIGHTS: {weights.classes} classes leak, the verdict names {named}")
        lows = [one.low for one in (weights.index, self.index) if one and one.low is not None]
        if lows and max(lows) - min(lows) > ROUNDING:
            raise ValueError("access WEIGHTS: its interval must be that of the worst case")

    def _resisting(self) -> None:
        """That nothing in the entry says that it leaks, or can't be said to resist."""
        facts, protocol = self.verdict, protocol_named(self.protocol)
        if facts.named or re.search(r"\bleaks? significantly\b", facts.reason):
            raise ValueError("it resists and names classes that leak")
        if facts.p is None or facts.p <= SIGNIFICANT:
            raise ValueError(f"it resists at p = {facts.p}: above {SIGNIFICANT} no leak is significant")
        if facts.missing:
            raise ValueError("it resists, and something is missing for that: missing must be empty")
        if not self.comparable:
            raise ValueError("what resists can be compared: comparable must be true")
        if leaking := [one.plugin.label for one in self.attacks if one.leaks]:
            raise ValueError(f"it resists and leaks by {leaking[0]}")
        if facts.networks < protocol.seeds:
            raise ValueError(f"it resists, and only {facts.networks} of {protocol.seeds} networks were attacked")
        for one in (one for one in self.attacks if one.plugin.name in protocol.attacks):
            judged = len(self.artifacts.images.get(one.plugin.label, ()))
            if judged < protocol.seeds or (one.index and one.index.n < protocol.seeds * self._classes):
                raise ValueError(f"it resists, and {one.plugin.label} was not judged on all {protocol.seeds} networks")
        if self.index and self.index.low is not None and self.index.low >= _HALF:
            raise ValueError(f"it resists, and its index is {_HALF} or more for certain: from {self.index.low:.3f}")
        if lost_too_much(self.accuracy_drop.value):
            raise ValueError(f"it resists and lost {self.accuracy_drop.value:g} of accuracy, {MOST_LOST} is allowed")

    def _counted(self) -> None:
        """That what is ranked is what its attacks found; docs/verdicts.md says what may not be compared."""
        leaks, required = self.verdict.outcome == "leaks", protocol_named(self.protocol).attacks
        for one in self.attacks:
            name, state = one.plugin.label, one.validity or one.status
            if one.plugin.name in required and (one.status != "ok" or one.validity is None):
                raise ValueError(f"comparable, and {name} did not work as {self.protocol} requires it")
            if one.validity == "decoys suspected":
                raise ValueError(f"comparable, and decoys are suspected by {name}")
            doubted = one.validity == "gradient masking suspected" or one.status == "no-signal"
            if not leaks and (doubted or (one.plugin.name in required and one.validity != "valid")):
                raise ValueError(f"comparable, and nothing leaks significantly by {name}: {state}")
        own = next((one for one in self.attacks if one.plugin.label == self.attack), None)
        valid = [one.index.value for one in self.attacks if one.validity == "valid" and one.index]
        if own and own.index and own.validity != "valid" and max(valid, default=0.0) < NEARLY * own.index.value:
            raise ValueError(f"comparable, and {self.attack}, which gets most, is not valid: {own.validity}")

    @property
    def command(self) -> str:
        """That measures it again."""
        required = protocol_named(self.protocol).attacks
        others = [one.plugin for one in self.attacks if one.plugin.name not in required]
        return self._command([*_required(self.protocol), *others] if others else [])


class Broken(_Checked):
    """What an attack was shown to break."""

    entry: Digest = Field(description="sha256 of the entry's file")
    attack: Text = Field(description="the worst case there")
    index: Share


class AttackEntry(_Entry):
    """An attack that gets more out of a defence than the entry that it breaks says."""

    kind: Literal["attack"] = "attack"
    attack: AttackResult
    breaks: Broken

    @model_validator(mode="after")
    def _breaking(self) -> Self:
        self.defense.check_built_in("defense")
        self.attack.plugin.check_built_in("attack")
        index, networks = self.attack.index, len(self.artifacts.victims)
        if (self.attack.status, self.attack.validity) != ("ok", "valid") or not self.attack.leaks or index is None:
            raise ValueError("an attack that breaks an entry must have worked (ok), be valid, leak and have an index")
        if index.low is None or index.high is None:
            raise ValueError("the index of an attack that breaks an entry must have an interval")
        self._check_images([self.attack])
        if index.n != self._classes * networks:
            right = f"{self._classes} classes of {networks} networks: n must be {self._classes * networks}"
            raise ValueError(f"the index must be over {right}, got {index.n}")
        if None in (self.attack.gradient_steps, self.attack.queries) or not self.attack.seconds:
            raise ValueError("an attack must say what it cost: gradient steps, queries, and seconds above 0")
        if index.value <= self.breaks.index.value:
            raise ValueError(f"the index must be above that of the entry, {self.breaks.index.value}")
        return self

    @property
    def command(self) -> str:
        """That runs it again."""
        required = protocol_named(self.protocol).attacks
        new = [] if self.attack.plugin.name in required else [self.attack.plugin]
        return self._command([*_required(self.protocol), *new])


Entry = DefenseEntry | AttackEntry
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


def read_entry(content: bytes) -> Entry:
    """The entry in a file's content. UsageError, half a line to go behind the file's name, where it holds none."""
    try:
        tree = json.loads(content, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise UsageError("is nested too deeply for an entry") from None
    except ValueError as error:
        raise UsageError(f"is no JSON: {_short(str(error))}") from None
    if not isinstance(tree, dict):
        raise UsageError("is no entry: it must be a JSON object")
    version = tree.get("schema_version")
    if type(version) is not int or version != ENTRY_SCHEMA:
        raise UsageError(f"has schema version {_short(repr(version))}, this LeakBench reads {ENTRY_SCHEMA}")
    try:
        return _ENTRY.validate_python(tree)
    except ValidationError as error:
        raise UsageError(f"is no entry: {fault(error)}") from None


def fault(error: ValidationError) -> str:
    """The first field at fault and why, half a line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = _short(first["msg"].removeprefix("Value error, "))
    return f"{_short(where)}: {message}" if where else message


def checked_links(given: Iterable[str]) -> dict[LinkKind, str]:
    """``code=https://...`` and ``paper=https://...`` by what they lead to. UsageError, which names --link."""
    links: dict[LinkKind, str] = {}
    for text in given:
        name, _, url = text.partition("=")
        kinds: dict[str, LinkKind] = {"code": "code", "paper": "paper"}
        if name not in kinds:
            raise UsageError(f"--link {text[:80]!r}: give code=https://... or paper=https://...")
        try:
            links[kinds[name]] = _checked_link(url)
        except ValueError as error:
            raise UsageError(f"--link {name}: {error}") from None
    return links


def _required(protocol: str) -> list[Plugin]:
    return [
        Plugin(name=name, label=name, origin=BUILT_IN, source=BUILT_IN, version=version, params={})
        for name, version in protocol_named(protocol).attacks.items()
    ]


def _check_worst(what: str, attack: str, index: Share | None, known: Mapping[str, Share]) -> None:
    """ValueError where that is not the highest index of ``known``, label -> index, with an interval that allows for the
    choice among them: from no more than the highest lower limit to the highest upper one."""
    if index is None or not known:
        if index or known:
            raise ValueError(f"{what} must have an index where an attack has one that is not invalid, and else none")
        return
    worst = max(known, key=lambda label: known[label].value)
    if attack not in known or any(
        abs(value - known[worst].value) > ROUNDING for value in (known[attack].value, index.value)
    ):
        right = f"{known[worst].value:.3f} by {worst}, the highest index of an attack that is not invalid"
        raise ValueError(f"{what} must be {right}; got {index.value:.3f} by {attack[:80]!r}")
    lows = [one.low for one in known.values() if one.low is not None]
    highs = [one.high for one in known.values() if one.high is not None]
    if not len(lows) == len(highs) == len(known):
        if index.low is not None or index.high is not None:
            raise ValueError(f"{what} must have no interval, as not all attacks have one")
    elif (
        index.low is None
        or index.high is None
        or index.low > max(lows) + ROUNDING
        or (abs(index.high - max(highs)) > ROUNDING)
    ):
        right = f"from at most {max(lows):.3f} to {max(highs):.3f}, no narrower than its attacks'"
        raise ValueError(f"{what} must have an interval {right}; got {index.low} to {index.high}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _short(text: str) -> str:
    line = printable(text)
    return line if len(line) <= 200 else f"{line[:200]}..."

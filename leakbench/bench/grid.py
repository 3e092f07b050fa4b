"""From what was asked for to the cells that are computed."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from leakbench import registry
from leakbench.contracts import Plugin, Precision
from leakbench.data import base_name, check_dataset, dataset_label, public_source
from leakbench.errors import PluginError, UnknownName, UsageError
from leakbench.models import model_label, pinned_model
from leakbench.models.training import Recipe
from leakbench.paths import checked_path
from leakbench.records import CONTROLS, UNPROTECTED
from leakbench.runtime.fence import described, fenced, load_plugin, made_plugin

log = logging.getLogger("leakbench")

Preset = Literal["quick", "standard", "paper"]

ANCHORS = ("noise", "real")
NO_ATTACK = "none"
"""in place of attacks: accuracy and energy alone"""


class Sizes(BaseModel):
    """What a preset sets outside the plugins."""

    model_config = ConfigDict(frozen=True)

    timesteps: int
    images_per_class: int
    test_images: int | None = Field(description="test images for accuracies; None: all")
    training_threads: int = Field(1, description="threads that ANNs are trained on; part of what is computed")


SIZES: Mapping[str, Sizes] = {
    "quick": Sizes(timesteps=16, images_per_class=4, test_images=1000),
    "standard": Sizes(timesteps=64, images_per_class=10, test_images=5000),
    "paper": Sizes(timesteps=150, images_per_class=100, test_images=None, training_threads=2),
}
# T where it is not the preset's: images of 64 pixels need fewer steps; the paper takes 200 for its larger sets
_TIMESTEPS: Mapping[str, Mapping[str, int]] = {
    "digits": {"standard": 32},
    "cifar100": {"paper": 200},
    "tinyimagenet": {"paper": 200},
}
_SMALL_MODEL = {"digits": "vgg4", "fashion-mnist": "vgg5", "mnist": "vgg5"}


SUITE_SETS = ("defense", "timesteps")
"""what a suite chooses itself"""
SUITE_ATTACKS = ("reconversion", "direct", "auto")
"""what it takes by default: the paper's two attacks, and the one to quote"""


MOST_TIMESTEPS = 100_000
"""two hundred times what papers simulate: beyond, a slip of the finger keeps a machine busy for weeks"""


class GridConfig(BaseModel):
    """The grid as it was asked for: the options of ``leakbench run`` and the keys of ``--config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: Literal["paper"] | None = Field(None, description="a set of grids that is laid out like a paper's tables")
    defense: tuple[str, ...] = ()
    attack: tuple[str, ...] = Field(("all",), min_length=1)
    dataset: tuple[str, ...] = Field(("digits",), min_length=1)
    model: tuple[str, ...] = ()
    timesteps: tuple[int, ...] = ()
    seeds: int = Field(1, ge=1, le=1000)
    images_per_class: int | None = Field(None, ge=1, le=10000)
    preset: Preset = "standard"
    precision: Precision = "float32"
    set: Mapping[str, tuple[Any, ...]] = Field({}, description='"plugin.param" -> values')
    ann: str | None = Field(None, description="safetensors checkpoint that takes the place of training")
    public: str | None = Field(
        None, description="where public images come from; None: the other half of a data set with :half, else photos"
    )
    controls: bool = True

    @model_validator(mode="before")
    @classmethod
    def _suite(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if given.get("suite") is None:
            if not given.get("defense"):
                raise ValueError("--defense is missing: name at least one, as in --defense privatesnn")
            return given
        for name in SUITE_SETS:
            if given.get(name):
                raise ValueError(f"--suite {given['suite']} names its own {name}: leave out --{name}")
        datasets = given.get("dataset", ("digits",))
        datasets = (datasets,) if isinstance(datasets, str) else datasets
        # sized for two cores, or for a GPU
        small = all(base_name(str(name)) in _SMALL_MODEL for name in datasets)
        return {"preset": "standard" if small else "paper", "attack": SUITE_ATTACKS, **given}

    @field_validator("seeds", "images_per_class", "timesteps", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if any(isinstance(one, bool) for one in (value if isinstance(value, list | tuple) else (value,))):
            raise ValueError("must be a number, not true or false")
        return value

    @field_validator("defense", "attack", "dataset", "model", "timesteps", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) else value

    @field_validator("set", mode="before")
    @classmethod
    def _as_lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        lists = {k: v if isinstance(v, list | tuple) else (v,) for k, v in _flat(value).items()}
        for key, values in lists.items():
            if any(isinstance(one, list | tuple | Mapping) for one in values):
                raise ValueError(f"{key} takes one value or a list of them")
        return {k: tuple(dict.fromkeys(v)) for k, v in lists.items()}

    @field_validator("defense", "attack", "dataset", "model", "timesteps")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("timesteps")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for steps in value:
            if steps < 1:
                raise ValueError(f"must be at least 1, got {steps}")
            if steps > MOST_TIMESTEPS:
                raise ValueError(f"must be at most {MOST_TIMESTEPS}, got {steps}")
        return value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """TOML reads [set] privatesnn.epochs = 5 as nested tables: back to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def make_config(options: Mapping[str, Any]) -> GridConfig:
    """A checked GridConfig; UsageError, one line, names the option at fault."""
    try:
        return GridConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UsageError(first["msg"].removeprefix("Value error, ")) from None
        name = str(first["loc"][0]).replace("_", "-")
        if first["type"] == "extra_forbidden":
            raise UnknownName("option", name, [f.replace("_", "-") for f in GridConfig.model_fields]) from None
        raise UsageError(f"--{name}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})") from None


class Member(BaseModel):
    """An attack that an ensemble runs: part of what the ensemble computes."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    params: Mapping[str, Any]


class Variant(BaseModel):
    """A plugin with its parameters: one row or column of the grid."""

    model_config = ConfigDict(frozen=True)

    target: str = Field(description="registered name or path/to/file.py:Class")
    name: str
    label: str = Field(description="the name, with [param=value] of what was set to another value or is varied")
    version: int
    params: Mapping[str, Any]
    code: str = Field("", description="sha256 of a third party's source: whoever edits it sees what new code makes")
    origin: str = Field("", description="where a third party's class is from: file, registered, or its distribution")
    members: tuple[Member, ...] = Field((), description="the attacks that an ensemble runs itself")


class Cell(BaseModel):
    """One cell: an attack on a defence, a defence alone (attack None), or an anchor (defense None)."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    model: str
    seed: int
    preset: Preset
    timesteps: int | None = Field(description="T; None where nothing spikes")
    at: tuple[int, ...] = Field(
        (), description="all T of the grid, where one network and one simulation serve them all"
    )
    precision: Precision = Field("float32", description="of a spiking network's convolutions")
    images_per_class: int
    test_images: int | None
    checkpoint: str | None
    defense: Variant | None
    attack: Variant | None = None
    public: str = Field("", description="source of the public images; empty where the attack uses none")
    anchor: str = ""
    control: bool = False
    of: str = Field(
        "",
        description="a check: the label of the attack that this is at half its effort, or of the "
        "anchor that this is a fresh draw of",
    )

    @property
    def plugins(self) -> list[tuple[registry.Kind, Variant]]:
        """The plugins that take part in it, with their kinds."""
        sides: list[tuple[registry.Kind, Variant | None]] = [("defense", self.defense), ("attack", self.attack)]
        return [(kind, variant) for kind, variant in sides if variant is not None]

    @property
    def title(self) -> str:
        """One line for people."""
        data = dataset_label(self.dataset)
        if self.defense is None:
            return f"{data} seed {self.seed}: {'fresh ' if self.of else ''}{self.anchor} images"
        what = self.defense.label
        on = f" x {self.attack.label}" if self.attack else ""
        return f"{data} {model_label(self.model)} seed {self.seed}: {what}{on}"


def expand_attacks(names: Iterable[str]) -> list[str]:
    """``all`` is every single attack that is registered; a broken third party is left out with a warning.

    Ensembles run these attacks themselves and are asked for by name.
    """
    wanted = list(names)
    if NO_ATTACK in wanted:
        if len(wanted) > 1:
            raise UsageError(f"--attack {NO_ATTACK} stands alone: it means that nothing attacks")
        return []
    out: list[str] = []
    for name in wanted:
        if name != "all":
            out.append(registry.newest("attack", name))
            continue
        for found in registry.entries("attack"):
            try:
                if not getattr(load_plugin("attack", found), "ensemble", False):
                    out.append(found)
            except PluginError as error:
                log.warning("left out: %s", error)
    return list(dict.fromkeys(out))


def plan(config: GridConfig) -> list[Cell]:
    """The cells of a grid, those that others build on first. Raises UsageError for anything wrong in it."""
    _check_names(config)
    sizes = SIZES[config.preset]
    defenses = list(config.defense)
    added = [name for name in CONTROLS if config.controls and name not in defenses]
    attacks = expand_attacks(config.attack)
    protecting = _load("defense", [*added, *defenses])
    attacking = _load("attack", attacks)
    _check_settings(config, {plugin.name for plugin in (*protecting.values(), *attacking.values())})
    rows_of = {name: list(_variants(name, plugin, config)) for name, plugin in protecting.items()}
    columns_of = {name: list(_variants(name, plugin, config)) for name, plugin in attacking.items()}
    cells: list[Cell] = []
    for dataset, seed in itertools.product(config.dataset, range(config.seeds)):
        preset_timesteps = _TIMESTEPS.get(base_name(dataset), {}).get(config.preset, sizes.timesteps)
        timesteps = config.timesteps or (preset_timesteps,)
        source = public_source(config.public, dataset)
        public = {name: source if getattr(attacking[name], "uses_public", False) else "" for name in attacks}
        for model in config.model or (default_model(dataset, config.preset),):
            base = Cell(
                dataset=dataset,
                model=pinned_model(model),
                seed=seed,
                preset=config.preset,
                timesteps=None,
                images_per_class=config.images_per_class or sizes.images_per_class,
                test_images=sizes.test_images,
                checkpoint=config.ann,
                defense=None,
            )
            for anchor in ANCHORS if attacks else ():
                drawn = base.model_copy(update={"anchor": anchor, "control": True})
                cells += [drawn, drawn.model_copy(update={"of": anchor})]
            rows: list[Cell] = []
            for name in [*added, *defenses]:
                spiking = bool(getattr(protecting[name], "spiking", True))
                for variant, steps in itertools.product(rows_of[name], timesteps if spiking else (None,)):
                    label = variant.label if steps is None or len(timesteps) == 1 else _label(variant.label, steps)
                    row: dict[str, Any] = {"defense": variant.model_copy(update={"label": label}), "timesteps": steps}
                    if steps is not None:
                        row["precision"] = config.precision
                        if _anytime(variant):
                            row["at"] = tuple(sorted(timesteps))
                    # a conversion that somebody asks about is a defence in question; the other two never are
                    control = name in CONTROLS and (name in added or name != UNPROTECTED)
                    rows.append(base.model_copy(update={**row, "control": control}))
            cells += rows
            cells += [
                row.model_copy(update={"attack": variant, "public": public[name]})
                for row in rows
                for name in attacks
                for variant in columns_of[name]
            ]
            cells += [
                row.model_copy(update={"attack": half, "of": variant.label, "public": public[name]})
                for row in rows
                if not row.control
                for name in attacks
                for variant in columns_of[name]
                if (half := _half_effort(variant, attacking[name])) is not None
            ]
    return cells


def _anytime(variant: Variant) -> bool:
    """Whether a defence's network is the same for every T; what its own code raises there is a PluginError."""
    plugin = made_plugin("defense", variant.target, variant.params)
    try:
        with fenced(variant.target, 0):
            return bool(getattr(plugin, "anytime", False))
    except Exception as error:
        raise PluginError(f"{variant.target}: its anytime can't be read: {described(error)}") from error


def _half_effort(variant: Variant, plugin: type[Plugin[Any]]) -> Variant | None:
    """The same attack with half as many steps, which must not do better (gate G4); None where it has no such number, or
    takes none so small."""
    effort = str(getattr(plugin, "effort", ""))
    full = variant.params.get(effort)
    if not isinstance(full, int) or full < 2:
        return None
    half = full // 2
    try:
        made_plugin(cast(registry.Kind, plugin.kind), variant.target, {**variant.params, effort: half})
    except (UsageError, PluginError):  # below the parameter's own bound
        return None
    return variant.model_copy(
        update={"label": f"{variant.label} ({effort}={half})", "params": {**variant.params, effort: half}}
    )


def _load(kind: registry.Kind, targets: Iterable[str]) -> dict[str, type[Plugin[Any]]]:
    """Target -> plugin. Two of one name are refused: their rows and settings could not be told apart."""
    plugins: dict[str, type[Plugin[Any]]] = {}
    for target in targets:
        plugin: type[Plugin[Any]] = load_plugin(kind, target)
        if plugin.name in {other.name for other in plugins.values()}:
            raise UsageError(f"two {kind}s of this grid are named {plugin.name!r}: give one of them another name")
        plugins[target] = plugin
    return plugins


def _label(label: str, timesteps: int) -> str:
    return f"{label[:-1]},T={timesteps}]" if label.endswith("]") else f"{label}[T={timesteps}]"


def _variants(target: str, plugin: type[Plugin[Any]], config: GridConfig) -> Iterable[Variant]:
    """One variant for each combination of the values that --set gives the plugin, alike ones once.

    The label has what the grid varies, and what was set to another value than the preset has: rows of two runs that
    read the same are made alike.
    """
    settings = {
        key.split(".", 1)[1]: values for key, values in config.set.items() if key.split(".", 1)[0] == plugin.name
    }
    preset = plugin.presets.get(config.preset, {})
    kind = cast(registry.Kind, plugin.kind)
    source = registry.source(kind, target)
    made: list[dict[str, Any]] = []
    for combination in itertools.product(*settings.values()):
        given = dict(zip(settings, combination, strict=True))
        params = made_plugin(kind, target, {**preset, **given}).params.model_dump(mode="json")
        if params not in made:  # 0.5 and 0.50
            made.append(params)
    usual = _usual(kind, target, preset)
    for params in made:
        shown = [
            f"{name}={_text(params[name])}"
            for name in params
            if name in settings and (any(params[name] != other[name] for other in (*made, usual)))
        ]
        yield Variant(
            target=target,
            name=plugin.name,
            label=f"{plugin.name}[{','.join(shown)}]" if shown else plugin.name,
            version=plugin.version,
            params=params,
            code=source.digest,
            origin=source.origin,
            members=tuple(
                Member(name=member.name, version=member.version, params=member.params.model_dump(mode="json"))
                for member in getattr(plugin, "members", ())
            ),
        )


def _usual(kind: registry.Kind, target: str, preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every parameter as it is where nothing is set; None where one has to be."""
    try:
        usual: dict[str, Any] = made_plugin(kind, target, preset).params.model_dump(mode="json")
    except UsageError:  # some parameter has no default
        return dict.fromkeys(load_plugin(kind, target).Params.model_fields)
    return usual


_WORD = re.compile(r"(?!(True|False|None|nan|inf)$)[A-Za-z_][^\s,=\[\]\"']*")


def _text(value: Any) -> str:
    """A parameter's value in a label, however it was typed: no two values read the same."""
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) and value.isprintable() else json.dumps(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value) if value is None or isinstance(value, bool | int) else json.dumps(value, sort_keys=True)


def _check_names(config: GridConfig) -> None:
    for name in config.dataset:
        check_dataset(name)
        public_source(config.public, name)
    for name in config.model:
        load_plugin("model", name)
    for what, labels in (
        ("data sets", [dataset_label(name) for name in config.dataset]),
        ("models", [model_label(name) for name in config.model]),
    ):
        if len(set(labels)) < len(labels):
            raise UsageError(f"two {what} of this grid are named {max(labels, key=labels.count)!r}: rename a file")
    if config.ann is not None and not checked_path(Path(config.ann), "--ann").is_file():
        raise UsageError(f"--ann: no such file {config.ann!r}")


def _check_settings(config: GridConfig, names: Collection[str]) -> None:
    for key, values in config.set.items():
        plugin, dot, _ = key.partition(".")
        if not dot or not values:
            raise UsageError(f"--set {key}: give plugin.param=value, as in privatesnn.epochs=5")
        if plugin not in names:
            raise UnknownName("plugin in --set", plugin, names)


def default_model(dataset: str, preset: str) -> str:
    """The member of the VGG family that a data set gets when none is named: VGG16 where the paper used it."""
    return _SMALL_MODEL.get(base_name(dataset), "vgg16" if preset == "paper" else "vgg9")


def victim_recipe(preset: str, images: int, side: int, flips: bool) -> Recipe:
    """How the ANN is trained: the paper's recipe, or one cycle of few epochs for small sets and CPUs."""
    if preset == "paper":
        return Recipe(crop=max(1, side // 8), flip=flips)
    small = images < 10_000
    epochs = {"quick": 20 if small else 3, "standard": 30 if small else 10}[preset]
    return Recipe(epochs, 32 if small else 64, lr=0.1, schedule="one-cycle", crop=side // 28, flip=flips)


def grid_digest(config: GridConfig) -> str:
    """Short hash of a grid: tells whether a folder holds a run of the same one."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]

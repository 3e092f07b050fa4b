"""From a grid to the cells that are computed."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from leakbench import registry
from leakbench.bench.grid import NO_ATTACK, NULLS_OF_ENSEMBLES, SIZES, GridConfig, default_model, default_timesteps
from leakbench.built_ins import GIVEN, NETWORK, UNTRAINED_NETWORK
from leakbench.cells import AnchorCell, AttackCell, BaseCell, Cell, CheckCell, Member, NullCell, UtilityCell, Variant
from leakbench.contracts import Defense, Plugin
from leakbench.contracts.attack import BaseAttack
from leakbench.contracts.plugin import kind_fields, kind_params
from leakbench.data import check_dataset, dataset_label, public_source
from leakbench.errors import PluginError, UnknownName, UsageError, described
from leakbench.leakage import KINDS, leakage_kind, leakage_kinds
from leakbench.leakage.controls import OVERFITTED, UNPROTECTED, UNSEEN, UNTRAINED
from leakbench.metrics.metric import Metric
from leakbench.models import model_label, pinned_model
from leakbench.paths import checked_path
from leakbench.runtime.fence import fenced
from leakbench.runtime.plugins import load_plugin, made_plugin, source

log = logging.getLogger("leakbench")


def expand_attacks(names: Iterable[str]) -> list[str]:
    """``all`` is every single registered attack, on classes and on members; a broken third party is left out with a
    warning.

    Ensembles run these attacks themselves and are asked for by name; what is run together with one comes with it.
    """
    wanted = list(names)
    if NO_ATTACK in wanted:
        if len(wanted) > 1:
            raise UsageError(f"--attack {NO_ATTACK} can't be combined with others: it means that nothing attacks")
        return []
    out: list[str] = []
    for name in wanted:
        if name != "all":
            out += registry.together("attack", name)
            continue
        for registered in registry.entries("attack"):
            try:
                if not load_plugin("attack", registered).ensemble:
                    out.append(registered)
            except PluginError as error:
                log.warning("left out: %s", error)
    return list(dict.fromkeys(out))


def plan(config: GridConfig) -> list[Cell]:
    """The cells of a grid, those that others build on first. Raises UsageError for anything wrong in it."""
    _check_names(config)
    registry.look_again()
    given = [name for name in config.defense if name.startswith(GIVEN)]
    if given and config.seeds > 1:  # copies of one network would count as several, and several are evidence
        raise UsageError(f"--seeds {config.seeds}: {given[0]!r} is the same network with every seed: leave it out")
    attacks = expand_attacks(config.attack)
    attacking: dict[str, type[BaseAttack[Any]]] = _load("attack", attacks)
    kinds = [leakage_kind(name) for name in _leakages(attacking)]
    usual = _usual_controls(config, attacking)
    protecting, measuring = _protecting(config, attacking), _load("metric", config.metric)
    check_settings(config, taking_part(config))
    rows = {name: list(_variants(name, plugin, config)) for name, plugin in protecting.items()}
    columns = {name: list(_variants(name, plugin, config)) for name, plugin in attacking.items()}
    metrics = tuple(_metric(name, plugin, config, _leakages(attacking)) for name, plugin in measuring.items())
    _check_titles(measuring)
    cells: list[Cell] = []
    for dataset, seed in itertools.product(config.dataset, range(config.seeds)):
        for model in config.model or (default_model(dataset, config.preset),):
            base = BaseCell(
                dataset=dataset,
                model=pinned_model(model),
                seed=seed,
                preset=config.preset,
                images_per_class=config.images_per_class or SIZES[config.preset].images_per_class,
                classes=config.classes,
                test_images=SIZES[config.preset].test_images,
                candidates=SIZES[config.preset].candidates,
                checkpoint=config.ann,
                precision=config.precision or SIZES[config.preset].precision,
            )
            for kind, anchor, fresh in ((k, a, f) for k in kinds for a in k.anchors for f in (False, True)):
                calibrating = {"control": True, "metrics": metrics, "leakage": kind.name}
                cells.append(AnchorCell(**_fields(base, **calibrating, anchor=anchor, fresh=fresh)))
            defended: list[UtilityCell] = []
            for name, plugin in protecting.items():
                # a conversion that somebody asks about is a defence in question; the other controls never are
                control = name in usual and (name not in config.defense or name != UNPROTECTED)
                for variant in rows[name]:
                    defended += _row(base, variant, plugin, config, control)
            cells += defended
            attacked = [
                (name, AttackCell(**_fields(row, attack=variant, leakage=attacking[name].leakage, **more)))
                for row in defended
                for name in attacks
                if _meant_for(row, leakage_kind(attacking[name].leakage).controls)
                if (more := {**_equipment(config, attacking[name], dataset), "metrics": metrics})
                for variant in columns[name]
            ]
            cells += [cell for _, cell in attacked]
            cells += [
                CheckCell(**_fields(cell, attack=half, checks=cell.attack.label))
                for name, cell in attacked
                if not cell.control and leakage_kind(cell.leakage).halves_effort
                if (half := _half_effort(cell.attack, attacking[name])) is not None
            ]
            if seed == 0 and config.controls:
                cells += _nulls(base, config, attacking, columns)
    return cells


def taking_part(config: GridConfig) -> set[str]:
    """The names of a grid's attacks, defences, controls and metrics, which ``--set`` may set something of."""
    attacking: dict[str, type[BaseAttack[Any]]] = _load("attack", expand_attacks(config.attack))
    plugins = (*_protecting(config, attacking).values(), *attacking.values(), *_load("metric", config.metric).values())
    return {plugin.name for plugin in plugins}


def _protecting(config: GridConfig, attacking: Mapping[str, type[BaseAttack[Any]]]) -> dict[str, type[Defense[Any]]]:
    """The controls, then the defences that were named."""
    controls = _usual_controls(config, attacking) if config.controls else []
    return _load("defense", [*(name for name in controls if name not in config.defense), *config.defense])


def _usual_controls(config: GridConfig, attacking: Mapping[str, type[BaseAttack[Any]]]) -> list[str]:
    """Those of the kinds of leak that are attacked, or of those by default."""
    kinds = [leakage_kind(name) for name in _leakages(attacking)]
    kinds = kinds or [kind for kind in leakage_kinds() if kind.by_default]
    return list(dict.fromkeys(_control(name, config) for kind in kinds for name in kind.controls))


def _control(name: str, config: GridConfig) -> str:
    """What makes a control: the untrained network of a grid whose only defence is a given spiking network has its
    neurons."""
    if name != UNTRAINED or len(config.defense) != 1 or not config.defense[0].startswith(NETWORK):
        return name
    network: type[Defense[Any]] = load_plugin("defense", config.defense[0])
    return UNTRAINED_NETWORK + config.defense[0].removeprefix(NETWORK) if network.spiking else name


def _nulls(
    base: BaseCell,
    config: GridConfig,
    attacking: Mapping[str, type[BaseAttack[Any]]],
    columns: Mapping[str, Sequence[Variant]],
) -> Iterable[NullCell]:
    """Attacks on networks that know nothing, where there are enough seeds for the comparison to tell anything.

    At the first T: many T's of a defence share them.
    """
    wanted = SIZES[config.preset].null_networks if config.null_networks is None else config.null_networks
    for number in range(wanted):
        for target, plugin in attacking.items():
            kind = leakage_kind(plugin.leakage)
            if not kind.nulls or config.seeds < kind.nulls_from or (plugin.ensemble and number >= NULLS_OF_ENSEMBLES):
                continue
            defense = kind.nulls[number % len(kind.nulls)]
            (variant,) = _variants(defense, load_plugin("defense", defense), config.model_copy(update={"set": {}}))
            row = next(iter(_row(base, variant, load_plugin("defense", defense), config, True)))
            row = row.model_copy(update={"defense": variant})
            for attack in columns[target]:
                given = {"attack": attack, "leakage": kind.name, "checks": attack.label, "number": number}
                yield NullCell(**_fields(row, **given, public=_public(config, plugin, base.dataset)))


def _fields(cell: BaseCell, **more: Any) -> dict[str, Any]:
    """What a cell has, for another type of cell, with what that has besides."""
    return {**{name: getattr(cell, name) for name in type(cell).model_fields if name != "type"}, **more}


def _leakages(attacking: Mapping[str, type[BaseAttack[Any]]]) -> list[str]:
    """The kinds of leak that attacks are after, in the order of the kinds."""
    wanted = {plugin.leakage for plugin in attacking.values()}
    return [*(name for name in KINDS if name in wanted), *sorted(wanted - KINDS.keys())]


def _row(
    base: BaseCell, variant: Variant, plugin: type[Plugin[Any]], config: GridConfig, control: bool
) -> Iterable[UtilityCell]:
    """The cells of a defence alone, one for every T, or one where its T is its own."""
    usual = default_timesteps(base.dataset, base.model, config.preset)
    timesteps = config.timesteps or (usual,)
    if not getattr(plugin, "spiking", True):
        yield UtilityCell(**_fields(base, defense=variant, control=control))
        return
    if plugin.name in (OVERFITTED, UNSEEN):
        # plain conversions: in few steps they are at chance themselves, and say nothing of an attack on a network made
        # for them
        timesteps = tuple(dict.fromkeys(max(steps, usual) for steps in timesteps))
    made = made_plugin("defense", variant.target, variant.params)
    taken = _said(variant, made, "takes_timesteps", True)
    timesteps = timesteps if taken else timesteps[:1]
    every = tuple(sorted(timesteps)) if taken and _said(variant, made, "anytime", False) else ()
    for steps in timesteps:
        label = variant.label if len(timesteps) == 1 else _label(variant.label, steps)
        named = variant.model_copy(update={"label": label})
        spiking = {"timesteps": steps, "all_timesteps": every}
        yield UtilityCell(**_fields(base, defense=named, control=control, **spiking))


def takes_timesteps(cell: UtilityCell) -> bool:
    """Whether the network of a planned cell spikes for as many steps as the grid says."""
    if cell.timesteps is None:
        return False
    made = made_plugin("defense", cell.defense.target, cell.defense.params, cell.defense.code)
    return bool(_said(cell.defense, made, "takes_timesteps", True))


def _meant_for(row: UtilityCell, controls: Collection[str]) -> bool:
    """Whether attacks that are calibrated by these controls run on the row: on every defence, and on their controls."""
    return not row.control or row.defense.name in controls


def _equipment(config: GridConfig, attack: type[Plugin[Any]], dataset: str) -> dict[str, Any]:
    """What the attack is handed besides the victim."""
    references = SIZES[config.preset].references if getattr(attack, "uses_references", False) else 0
    return {"public": _public(config, attack, dataset), "references": references}


def _public(config: GridConfig, attack: type[Plugin[Any]], dataset: str) -> str:
    """Source of the attack's public images; empty where it uses none."""
    return public_source(config.public, dataset) if getattr(attack, "uses_public", False) else ""


def _metric(target: str, plugin: type[Metric[Any]], config: GridConfig, leakages: Collection[str]) -> Variant:
    """An added metric with what --set gives it."""
    if registry.is_built_in("metric", target):
        raise UsageError(f"--metric {target}: built-in metrics need no --metric; name one of yours")
    _check_free(target, plugin.name)
    leakage = plugin.declaration().leakage
    if leakage not in leakages:
        problem = (
            f"no attack in this grid uses it, as its leakage is {leakage}"
            if leakage in KINDS
            else f"leakage must be {' or '.join(KINDS)}"
        )
        raise UsageError(f"--metric {target}: {problem}")
    variants = list(_variants(target, plugin, config))
    if len(variants) > 1:
        raise UsageError(f"--set {plugin.name}: a metric takes one value of each parameter")
    return variants[0]


def _check_titles(measuring: Mapping[str, type[Metric[Any]]]) -> None:
    """UsageError for the heading of a built-in metric. ``measuring``: target -> added metric."""
    if not measuring:
        return
    taken = {load_plugin("metric", name).declaration().title: name for name in registry.built_in("metric")}
    for target, plugin in measuring.items():
        title = plugin.declaration().title
        if title in taken:
            raise UsageError(f"--metric {target}: its title {title!r} is that of {taken[title]}: give it another title")


def _check_free(target: str, name: str) -> None:
    """UsageError where another plugin has the name of an added metric: options and tables would mix them up."""
    kinds: tuple[registry.Kind, ...] = ("metric", "attack", "defense")
    for kind in kinds:
        taken = registry.entries(kind).get(name)
        if taken is not None and (kind, target) != ("metric", name):
            by = f"the {kind} {name!r} ({taken.origin})"
            raise UsageError(f"--metric {target}: its name {name!r} is taken by {by}: give it another name")


def _said(variant: Variant, plugin: Any, name: str, usual: bool) -> bool:
    """What a defence says of itself and T; what its own code raises there is a PluginError."""
    try:
        with fenced(variant.target, 0):
            return bool(getattr(plugin, name, usual))
    except Exception as error:
        raise PluginError(f"{variant.target}: its {name} can't be read: {described(error)}") from error


def _half_effort(variant: Variant, plugin: type[Plugin[Any]]) -> Variant | None:
    """The same attack with half as many steps, which must not do better (gate G4); None where it has no such number, or
    takes none so small."""
    effort = str(getattr(plugin, "effort", ""))
    full = variant.params.get(effort)
    if not isinstance(full, int) or full < 2:
        return None
    half = full // 2
    params = {**variant.params, effort: half}
    try:
        made = made_plugin(cast(registry.Kind, plugin.kind), variant.target, params)
    except (UsageError, PluginError):  # below the parameter's own bound
        return None
    changed = made.params.model_dump(mode="json", exclude_defaults=True)
    label = f"{variant.label} ({effort}={half})"
    return variant.model_copy(update={"label": label, "params": params, "changed": changed})


def _load(kind: registry.Kind, targets: Iterable[str]) -> dict[str, Any]:
    """Target -> plugin. Two of one name are refused: their rows and settings would look alike."""
    plugins: dict[str, type[Plugin[Any]]] = {}
    for target in targets:
        plugin: type[Plugin[Any]] = load_plugin(kind, target)
        if kind != "metric" and registry.is_built_in(kind, plugin.name) and not registry.is_built_in(kind, target):
            raise UsageError(f"{target}: its name {plugin.name!r} is that of a built-in {kind}: give it another name")
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
    if unknown := sorted(plugin.presets.keys() - SIZES.keys()):
        raise PluginError(f"{plugin.name}: its presets name {unknown[0]!r}: a preset is one of {', '.join(SIZES)}")
    preset = plugin.presets.get(config.preset, {})
    kind = cast(registry.Kind, plugin.kind)
    origin = source(kind, target)
    of_kind = kind_fields(plugin)
    distinct: list[tuple[dict[str, Any], dict[str, Any]]] = []
    changed: list[dict[str, Any]] = []
    for combination in itertools.product(*settings.values()):
        given = dict(zip(settings, combination, strict=True))
        acted_on = kind_params(plugin, {name: given.pop(name) for name in of_kind if name in given})
        made = made_plugin(kind, target, {**preset, **given}).params
        both = made.model_dump(mode="json"), acted_on.model_dump(mode="json", exclude_defaults=True)
        if both not in distinct:  # 0.5 and 0.50
            distinct.append(both)
            changed.append(made.model_dump(mode="json", exclude_defaults=True))
    usual = _usual(kind, target, preset)
    every = [*(params for params, _ in distinct), usual]
    for (params, more), others in zip(distinct, changed, strict=True):
        shown = [
            f"{name}={_text(params[name])}"
            for name in params
            if name in settings and (any(params[name] != other[name] for other in every))
        ]
        shown += [f"{name}={_text(value)}" for name, value in more.items()]
        yield Variant(
            target=target,
            name=plugin.name,
            label=f"{plugin.name}[{','.join(shown)}]" if shown else plugin.name,
            version=plugin.version,
            params=params,
            changed=others,
            code=origin.digest,
            origin=origin.origin,
            members=tuple(
                Member(name=member.name, version=member.version, params=member.params.model_dump(mode="json"))
                for member in getattr(plugin, "members", ())
            ),
            **more,
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
    for plural, labels in (
        ("data sets", [dataset_label(name) for name in config.dataset]),
        ("models", [model_label(name) for name in config.model]),
    ):
        if len(set(labels)) < len(labels):
            raise UsageError(f"two {plural} of this grid are named {max(labels, key=labels.count)!r}: rename a file")
    if config.ann is not None and not checked_path(Path(config.ann), "--ann").is_file():
        raise UsageError(f"--ann: no such file {config.ann!r}")


def check_settings(config: GridConfig, names: Collection[str]) -> None:
    """UsageError where something is set of what is not among these plugins, or in another form."""
    for key, values in config.set.items():
        plugin, dot, _ = key.partition(".")
        if not dot or not values:
            raise UsageError(f"--set {key}: give plugin.param=value, as in privatesnn.epochs=5")
        if plugin not in names:
            unknown = UnknownName("plugin in --set", plugin, names)
            raise UsageError(f"{unknown} (only what takes part here can be set)")

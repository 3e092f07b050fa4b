"""Cells: four types of one union, distinguished by ``type``, in JSON as in Python."""

from __future__ import annotations

import json
from typing import Any

import pytest
from planned_cells import anchors, attacks, checks, planned, rows
from pydantic import TypeAdapter, ValidationError

from leakbench.cells import AnchorCell, AttackCell, BaseCell, Cell, CheckCell, Member, NullCell, UtilityCell, Variant

CELLS: TypeAdapter[Cell] = TypeAdapter(Cell)
COMMON: dict[str, Any] = {
    "dataset": "digits", "model": "vgg4", "seed": 2, "preset": "quick", "images_per_class": 4, "test_images": None,
    "checkpoint": None,
}  # fmt: skip
DEFENSE = Variant(target="han2020", name="han2020", label="han2020[T=4]", version=1, params={"images": 16})


def test_a_network_that_is_given_is_the_same_whatever_its_file_is_called() -> None:
    one, other = (
        Variant(target=f"network:/tmp/{name}.safetensors", name=name, label=name, version=1, params={"sha256": "ab"})
        for name in ("mine", "copy")
    )
    assert one.identity == other.identity and one.plugin == other.plugin == "network"
    assert DEFENSE.plugin == "han2020"


ATTACK = Variant(
    target="mine.py:Mine", name="mine", label="mine", version=2, params={"depth": 3, "odd": [1, None, "x"]},
    code="abc", origin="file", members=(Member(name="direct", version=1, params={"iterations": 2}),),
)  # fmt: skip
METRIC = Variant(target="own.py:Own", name="own", label="own", version=1, params={}, code="def", origin="file")
ROW: dict[str, Any] = {**COMMON, "defense": DEFENSE, "timesteps": 4, "all_timesteps": (4, 8), "precision": "bfloat16"}
ONE_OF_EACH: list[Cell] = [
    AnchorCell(**COMMON, leakage="inversion", anchor="noise", fresh=True, control=True, metrics=(METRIC,)),
    UtilityCell(**ROW),
    AttackCell(**ROW, attack=ATTACK, leakage="inversion", public="photos", metrics=(METRIC,)),
    CheckCell(**ROW, attack=ATTACK, leakage="inversion", checks="mine"),
    NullCell(**ROW, attack=ATTACK, leakage="inversion", checks="mine", number=3),
]


@pytest.mark.parametrize("cell", ONE_OF_EACH, ids=lambda cell: cell.type)
def test_a_cell_comes_back_from_json_as_what_it_is(cell: Cell) -> None:
    text = CELLS.dump_json(cell)
    assert json.loads(text)["type"] == cell.type
    for again in (CELLS.validate_json(text), CELLS.validate_python(cell.model_dump())):
        assert type(again) is type(cell)
        assert again == cell


def test_every_cell_of_a_plan_comes_back() -> None:
    cells = planned(timesteps=["4", "8"], dataset=["digits", "digits:half"])
    assert [CELLS.validate_json(CELLS.dump_json(cell)) for cell in cells] == cells
    assert {cell.type for cell in cells} == {"anchor", "utility", "attack", "check"}


def test_the_type_alone_tells_a_check_from_an_attack() -> None:
    check = ONE_OF_EACH[3].model_dump()
    assert CELLS.validate_python(check | {"type": "check"}) == ONE_OF_EACH[3]
    with pytest.raises(ValidationError):
        CELLS.validate_python({name: value for name, value in check.items() if name != "checks"})
    assert type(CELLS.validate_python(check | {"type": "attack"})) is AttackCell


@pytest.mark.parametrize("wrong", [{"type": "fish"}, {"type": None}, {}])
def test_what_has_no_type_of_a_cell_is_none(wrong: dict[str, Any]) -> None:
    given = {name: value for name, value in ONE_OF_EACH[1].model_dump().items() if name != "type"}
    with pytest.raises(ValidationError):
        CELLS.validate_python(given | wrong)


def test_cells_are_never_changed() -> None:
    for cell in ONE_OF_EACH:
        with pytest.raises(ValidationError, match="frozen"):
            cell.seed = 3  # type: ignore[misc]


def test_no_two_cells_of_a_plan_have_one_title() -> None:
    cells = planned(timesteps=["4", "8"], seeds=2)
    titles = [cell.title for cell in cells]
    assert len(set(titles)) == len(titles)
    assert all(title.isprintable() and title.startswith("digits ") for title in titles)
    with pytest.raises(NotImplementedError):
        _ = BaseCell(**COMMON).title


def test_cells_of_one_row_share_their_row_and_their_network() -> None:
    cells = planned(timesteps=["4", "8"])
    for cell in (*attacks(cells), *checks(cells)):
        (own,) = [row for row in rows(cells) if row.row == cell.row]
        assert (own.defense, own.timesteps, own.network) == (cell.defense, cell.timesteps, cell.network)
    assert len({row.row for row in rows(cells)}) == len(rows(cells))


def test_the_plugins_of_a_cell_are_named_with_their_kinds() -> None:
    anchor, row, attack, *checks_of = ONE_OF_EACH
    assert anchor.variants == [("metric", METRIC)]
    assert row.variants == [("defense", DEFENSE)]
    assert attack.variants == [("attack", ATTACK), ("defense", DEFENSE), ("metric", METRIC)]
    assert all(check.variants == [("attack", ATTACK), ("defense", DEFENSE)] for check in checks_of)
    assert not any(cell.variants for cell in anchors(planned()))


def test_an_identity_is_what_is_run_and_no_label() -> None:
    assert DEFENSE.identity == {"plugin": "han2020", "version": 1, "params": {"images": 16}}
    assert ATTACK.identity == {
        "plugin": "mine",
        "version": 2,
        "params": {"depth": 3, "odd": [1, None, "x"]},
        "members": [{"name": "direct", "version": 1, "params": {"iterations": 2}}],
        "code": "abc",
        "origin": "file",
        "class": "Mine",
    }
    assert DEFENSE.source == {}
    elsewhere = ATTACK.model_copy(update={"label": "other", "target": "elsewhere/mine.py:Mine"})
    assert elsewhere.identity == ATTACK.identity  # a file that is moved stays what it is
    json.dumps(ATTACK.identity, allow_nan=False)

"""The method's part of a report: what each attack was given."""

from __future__ import annotations

from report_samples import cell, record

from leakbench.records import PluginInfo
from leakbench.reports.method import Row, collect

PHOTOS = "10,000 random crops of two photographs"


def test_an_attack_s_public_images_stand_with_its_parameters() -> None:
    given = {"attack_params": {"steps": 3}, "public": PHOTOS}
    made = record(
        [
            cell("d", "prior", **given),
            cell("e", "prior", **given),
            cell("f", "prior", status="failed"),  # never ran: neither parameters nor images
            cell("d", "prior", dataset="other", **(given | {"public": "the other half"})),
            cell("d", "direct", attack_params={"steps": 4}),
        ]
    )
    assert [(row.label, row.parameters) for row in collect(made).rows if row.kind == "attack"] == [
        ("prior", (("steps", "3"), ("public images", PHOTOS))),
        ("prior", (("steps", "3"), ("public images", "the other half"))),
        ("direct", (("steps", "4"),)),
    ]


def test_a_row_is_listed_once_with_all_that_it_was_made_with() -> None:
    given = {"defense_params": {"images": 16}, "defense_version": 3, "defense_source": "ab", "preset": "quick"}
    cells = [cell("d", seed=seed, timesteps=8, **given) for seed in (0, 1)]
    cells.append(cell("d", "a", timesteps=8, attack_version=2, **given))
    assert collect(record(cells)).rows == (
        Row("defence", "d", (("images", "16"),), "8", "quick", "3", "ab"),
        Row("attack", "a", (), "", "quick", "2", ""),
    )


def test_metrics_models_and_data_sets_of_others_are_listed_with_their_source() -> None:
    plugins = [
        PluginInfo(kind="attack", name="a", version=1, summary="", source="aa"),
        PluginInfo(kind="metric", name="mine", version=4, summary="", source="bb", params={"size": 5}),
        PluginInfo(kind="model", name="m.py:build", summary="", source="cc"),
        PluginInfo(kind="dataset", name="d.py:draw", summary="", source="dd"),
    ]
    assert collect(record([cell("d")], plugins=plugins)).rows[1:] == (
        Row("metric", "mine", (("size", "5"),), "", "", "4", "bb"),
        Row("model", "m.py:build", (), "", "", "", "cc"),
        Row("data set", "d.py:draw", (), "", "", "", "dd"),
    )


def test_a_label_that_was_made_otherwise_on_another_data_set_says_where() -> None:
    cells = [cell("d", dataset=name, timesteps=steps) for name, steps in (("x", 8), ("y", 16), ("z", 8))]
    cells += [cell("e", dataset=name, timesteps=4) for name in ("x", "y")]
    assert [(row.label, row.timesteps, row.where) for row in collect(record(cells)).rows] == [
        ("d", "8", "x · vgg-small; z · vgg-small"),
        ("d", "16", "y · vgg-small"),
        ("e", "4", ""),
    ]


def test_what_failed_does_not_hide_what_another_seed_knows() -> None:
    cells = [cell("d", status="failed", timesteps=64), cell("d", seed=1, timesteps=8)]
    assert [row.timesteps for row in collect(record(cells)).rows] == ["8"]

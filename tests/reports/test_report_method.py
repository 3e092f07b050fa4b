"""The method's part of a report: what each attack was given."""

from __future__ import annotations

from report_samples import cell, record

from leakbench.reports.method import collect

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

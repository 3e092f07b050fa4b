from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from report_samples import anchor, calibration, cell, index, judged, record, row, verdict

from leakbench.errors import DataError
from leakbench.records import DatasetInfo, Picture, RealPicture
from leakbench.reports import images
from leakbench.reports.html import render
from leakbench.reports.images import MAX_SIDE, embed
from leakbench.reports.summary import groups
from leakbench.reports.wall import MAX_CLASSES, wall


def draw(path: Path, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_arrive_as_they_were(tmp_path: Path, mode: str) -> None:
    draw(tmp_path / "images" / "a.png", (17, 17), mode)
    made = embed(tmp_path, "images/a.png")
    with Image.open(tmp_path / "images" / "a.png") as before:
        np.testing.assert_array_equal(np.asarray(decoded(made.uri)), np.asarray(before))
    assert (made.width, made.height) == (51, 51) and not made.shrunk and not made.smooth


@pytest.mark.parametrize(("side", "shown"), [(8, 64), (28, 56), (32, 64), (64, 64), (224, 64)])
def test_pictures_are_shown_at_whole_multiples_of_their_size(tmp_path: Path, side: int, shown: int) -> None:
    draw(tmp_path / "images" / "a.png", (side, side))
    made = embed(tmp_path, "images/a.png")
    assert made.width == shown
    assert made.shrunk == (side > MAX_SIDE)
    assert made.smooth or max(decoded(made.uri).size) == min(side, MAX_SIDE)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (16, 8), (1, 16)])
def test_small_pictures_are_enlarged_smoothly(tmp_path: Path, size: tuple[int, int]) -> None:
    draw(tmp_path / "images" / "a.png", size)
    made = embed(tmp_path, "images/a.png")
    enlarged = decoded(made.uri)
    assert made.smooth and max(enlarged.size) == 32 and max(made.width, made.height) == 64
    with Image.open(tmp_path / "images" / "a.png") as before:
        squares = np.asarray(before.resize(enlarged.size, Image.Resampling.NEAREST), dtype=float)
    smooth = np.asarray(enlarged, dtype=float)
    assert np.corrcoef(squares.ravel(), smooth.ravel())[0, 1] > 0.7
    assert len(np.unique(smooth)) > len(np.unique(squares))


def test_what_is_not_pixels_stays_behind(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "private words")
    Image.new("L", (8, 8)).save(tmp_path / "images" / "a.png", pnginfo=notes)
    with (tmp_path / "images" / "a.png").open("ab") as file:
        file.write(b"<script>trailing</script>")
    body = base64.b64decode(embed(tmp_path, "images/a.png").uri.partition(",")[2])
    assert b"private words" not in body and b"trailing" not in body


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "images/../../secret.png",
        "images/../secret.png",
        "secret.png",
        "images",
        "images/",
        "",
        ".",
        "images/a.png/../../../secret.png",
        "images\\..\\secret.png",
        "C:/images/a.png",
        "file:///images/a.png",
        "images/a\0.png",
    ],
)
def test_a_path_that_leaves_the_folder_is_not_opened(tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    draw(run / "images" / "a.png")
    draw(tmp_path / "secret.png")
    draw(run / "secret.png")
    with pytest.raises(DataError, match="not opened"):
        embed(run, path)


def test_an_absolute_path_is_not_opened(tmp_path: Path) -> None:
    inside = draw(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="not opened"):
        embed(tmp_path, str(inside))


def test_links_are_not_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    secret = draw(tmp_path / "secret.png")
    (run / "images").mkdir(parents=True)
    (run / "images" / "a.png").symlink_to(secret)
    (run / "images" / "folder").symlink_to(tmp_path, target_is_directory=True)
    for path in ("images/a.png", "images/folder/secret.png"):
        with pytest.raises(DataError, match="through a link"):
            embed(run, path)


def test_a_linked_images_folder_is_not_followed(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(DataError, match="through a link"):
        embed(tmp_path / "run", "images/a.png")


def test_a_run_behind_a_link_of_the_users_own_works(tmp_path: Path) -> None:
    draw(tmp_path / "run" / "images" / "a.png")
    (tmp_path / "latest").symlink_to(tmp_path / "run", target_is_directory=True)
    assert embed(tmp_path / "latest", "images/a.png").width == 64


def test_what_is_no_png_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images" / "folder.png").mkdir(parents=True)
    (tmp_path / "images" / "text.png").write_text("<svg onload=alert(1)>")
    Image.new("L", (8, 8)).save(tmp_path / "images" / "jpeg.png", format="JPEG")
    whole = draw(tmp_path / "images" / "whole.png").read_bytes()
    (tmp_path / "images" / "half.png").write_bytes(whole[: len(whole) // 2])
    for name, why in (
        ("text", "PNG"),
        ("jpeg", "PNG"),
        ("half", "PNG"),
        ("folder", "missing"),
        ("none", "missing"),
    ):
        with pytest.raises(DataError, match=why):
            embed(tmp_path, f"images/{name}.png")


def test_a_large_file_is_refused_and_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(draw(tmp_path / "images" / "a.png").read_bytes())
    monkeypatch.setattr(images, "MAX_BYTES", size)
    assert len(images.content(tmp_path, "images/a.png")) == size
    monkeypatch.setattr(images, "MAX_BYTES", size - 1)
    for read in (images.content, embed):
        with pytest.raises(DataError, match=r"'images/a\.png' is larger than"):
            read(tmp_path, "images/a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_does_not_hang_the_report(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="missing"):
        embed(tmp_path, "images/a.png")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("1", (5000, 5000)).save(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="5000 x 5000"):
        embed(tmp_path, "images/a.png")


# --- the wall


def test_the_wall_shows_the_first_picture_of_each_class_in_the_papers_order(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "first.png", (8, 8))
    draw(tmp_path / "images" / "second.png", (16, 16))
    two = [Picture(path=f"images/{name}.png", target=1) for name in ("first", "second")]
    made = record(
        [
            cell("privatesnn", "inversion", values=judged(71, 60.0), pictures=two),
            cell("ann", "inversion", control=True, status="failed", reason="x"),
            cell("random", "inversion", control=True, status="no-signal", reason="zero gradients: of all 40 images"),
            anchor("noise", pictures=two),
            anchor("real", pictures=two),
        ],
        datasets=[_classes(["cat", "dog"])],
    )
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None and shown.classes == ("dog",) and shown.refused == ()
    assert [[row.label for row in block.rows] for block in shown.blocks] == [
        ["real images", "noise images"],
        ["privatesnn", "ann", "random"],
    ]
    tile = shown.blocks[1].rows[0].tiles[0]
    assert tile.alt == "inversion on privatesnn, class dog"
    assert tile.image == embed(tmp_path, "images/first.png")
    assert shown.blocks[1].rows[1].why_empty == "failed: x" and shown.blocks[1].rows[1].tiles == ()
    assert shown.blocks[1].rows[2].why_empty == "no signal: zero gradients: of all 40 images"


@pytest.mark.parametrize(
    ("named", "confidence", "prediction", "correct", "alt"),
    [
        (1, 0.934, "dog .93", True, "inversion on d, class dog, predicted dog .93"),
        (0, 0.5, "cat .50", False, "inversion on d, class dog, predicted cat .50"),
        (7, 1.0, "class 7 1.00", False, "inversion on d, class dog, predicted class 7 1.00"),
        (0, None, "cat", False, "inversion on d, class dog, predicted cat"),
        (None, None, "", False, "inversion on d, class dog"),
    ],
)
def test_each_picture_has_its_prediction(
    tmp_path: Path, named: int | None, confidence: float | None, prediction: str, correct: bool, alt: str
) -> None:
    draw(tmp_path / "images" / "a.png")
    picture = Picture(path="images/a.png", target=1, named=named, confidence=confidence)
    made = record([cell("d", "inversion", pictures=[picture])], datasets=[_classes(["cat", "dog"])])
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None
    (tile,) = shown.blocks[0].rows[0].tiles
    assert (tile.prediction, tile.correct, tile.alt) == (prediction, correct, alt)


def test_a_rejected_picture_is_of_no_class_where_it_may_be_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "images" / "a.png")
    picture = Picture(path="images/a.png", target=1, named=1, confidence=0.9, accepted=False)
    made = record([cell("d", "inversion", pictures=[picture])], datasets=[_classes(["cat", "dog"])])
    (group,) = groups(made)
    for headline, told in ((group.headline, ("none", False)), ("another", ("dog .90", True))):
        monkeypatch.setattr("leakbench.reports.wall.OPEN_SET", headline)
        shown = wall(made, group, tmp_path)
        assert shown is not None
        (tile,) = shown.blocks[0].rows[0].tiles
        assert (tile.prediction, tile.correct) == told


def test_a_row_has_its_validity_its_index_and_the_judges_share(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    picture = Picture(path="images/a.png", target=1)
    made = record(
        [cell("d", "a", values=judged(71, 60.0), pictures=[picture]), cell("e", "a", pictures=[picture])],
        rows=[row("d", "a", index(0.7), validity="optimisation failure"), row("e", "a", index(None))],
    )
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None
    assert [found.notes for found in shown.blocks[0].rows] == [
        ("not optimised", "index .70 [.60, .80]", "accuracy .71 [.61, .79] n=100"),
        (),
    ]


def test_no_more_than_twenty_of_two_hundred_classes(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    made = record(
        [
            cell(
                "a",
                "b",
                values=judged(7, 60.0),
                pictures=[Picture(path="images/a.png", target=t) for t in range(200)],
            ),
            *calibration(),
        ],
        datasets=[_classes([f"class-{i}" for i in range(200)])],
    )
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None and shown.total == 200
    assert len(shown.classes) == MAX_CLASSES == len(shown.blocks[0].rows[0].tiles)


def test_of_many_classes_those_that_were_attacked_are_shown(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")

    def of(targets: range) -> list[Picture]:
        return [Picture(path="images/a.png", target=target) for target in targets]

    made = record(
        [
            cell("a", "b", values=judged(7, 60.0), pictures=of(range(100, 105))),
            anchor("real", values=judged(97, 9.0), pictures=of(range(200))),
        ],
        datasets=[_classes([f"class-{i}" for i in range(200)])],
    )
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None and shown.total == 5
    assert shown.classes == tuple(f"class-{i}" for i in range(100, 105))


def test_a_refused_picture_leaves_a_gap_and_its_reason(tmp_path: Path) -> None:
    made = record(
        [
            cell(
                "a",
                "b",
                pictures=[Picture(path="../x.png", target=0), Picture(path="images/n.png", target=9)],
            )
        ]
    )
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None
    assert [tile.missing for tile in shown.blocks[0].rows[0].tiles] == ["not shown", "not shown"]
    assert [path for path, _ in shown.refused] == ["../x.png", "images/n.png"]
    assert shown.classes == ("class 0", "class 9")


def test_no_pictures_no_wall(tmp_path: Path) -> None:
    made = record([cell("a", "b", values=judged(7, 60.0))])
    (group,) = groups(made)
    assert wall(made, group, tmp_path) is None


def _classes(names: list[str]) -> DatasetInfo:
    return DatasetInfo(
        name="digits",
        classes=names,
        train_images=1,
        test_images=1,
        channels=1,
        height=8,
        width=8,
        source="",
        fingerprint="",
    )


def test_the_worst_case_and_real_images_are_beside_private_images(tmp_path: Path) -> None:
    for name in ("drawn", "real", "trained", "held", "other"):
        draw(tmp_path / "images" / f"{name}.png")

    def beside(name: str, held_out: str = "held") -> list[Picture]:
        compared = {
            "training": RealPicture(path="images/trained.png", ssim=0.91),
            "held_out": RealPicture(path=f"images/{held_out}.png", ssim=-0.25),
        }
        return [
            Picture(path=f"images/{name}.png", target=1, **compared),
            Picture(path="images/other.png", target=1),
        ]

    made = record(
        [
            cell("privatesnn", "inversion", pictures=beside("drawn", "gone")),
            cell("privatesnn", "direct", pictures=beside("other")),
            cell("ann", "inversion", control=True, pictures=beside("other")),
            anchor("real", pictures=beside("real")),
            anchor("noise", pictures=[Picture(path="images/other.png", target=0)]),
        ],
        verdicts=[verdict("privatesnn", attack="inversion")],
        datasets=[_classes(["cat", "dog"])],
    )
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None and shown.private_classes == ("dog",)
    assert [block.title for block in shown.private] == ["real images", "inversion on privatesnn"]
    labels = ["image", "nearest training image", "nearest held-out image"]
    assert [[row.label for row in block.rows] for block in shown.private] == [labels, labels]
    real, worst = ([row.tiles[0] for row in block.rows] for block in shown.private)
    assert [tile.image for tile in real] == [embed(tmp_path, f"images/{x}.png") for x in ("real", "trained", "held")]
    assert [tile.alt for tile in real] == [
        "real images, image, class dog",
        "real images, nearest training image, class dog, SSIM .91",
        "real images, nearest held-out image, class dog, SSIM -.25",
    ]
    assert worst[0].image == embed(tmp_path, "images/drawn.png") and worst[2].missing == "not shown"
    assert [path for path, _ in shown.refused] == ["images/gone.png"]
    page = render(made, tmp_path)
    assert "<summary>Nearest private images</summary>" in page and "These are private images" in page


def test_pictures_without_private_images_have_no_such_part(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    made = record([cell("d", "inversion", pictures=[Picture(path="images/a.png", target=0)])])
    (group,) = groups(made)
    shown = wall(made, group, tmp_path)
    assert shown is not None and shown.private == ()
    assert "Nearest private images" not in render(made, tmp_path)

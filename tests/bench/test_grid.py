"""The grid as it is asked for: what its digest is of, settings of files, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planned_cells import QUICK, labels, planned

from leakbench import registry
from leakbench.bench.grid import GridConfig, grid_digest, make_config, standardizes, victim_recipe
from leakbench.bench.plan import plan
from leakbench.cells import Preset
from leakbench.errors import LeakBenchError, UnknownName, UsageError


def refused(**options: Any) -> str:
    with pytest.raises(LeakBenchError) as caught:
        planned(**options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


# --- what is asked for ---------------------------------------------------------------------------------------------


def test_the_digest_is_of_the_grid_alone() -> None:
    first = make_config(QUICK)
    assert grid_digest(first) == grid_digest(make_config(dict(QUICK)))
    others: list[dict[str, Any]] = [
        {"defense": ["datafree"]},
        {"attack": ["all"]},
        {"dataset": ["mnist"]},
        {"model": ["vgg4"]},
        {"timesteps": ["4"]},
        {"seeds": 2},
        {"images_per_class": 3},
        {"classes": 2},
        {"preset": "standard"},
        {"set": {"direct.iterations": ["3"]}},
        {"ann": "weights.safetensors"},
        {"judges": "folder"},
        {"controls": False},
        {"null_networks": 3},
        {"public": "photos"},
        {"precision": "bfloat16"},
        {"metric": ["mine"]},
    ]
    assert {next(iter(other)) for other in others} == set(GridConfig.model_fields) - {"suite"}
    digests = {grid_digest(make_config({**QUICK, **other})) for other in others}
    digests.add(grid_digest(make_config({"suite": "paper"})))
    assert len(digests | {grid_digest(first)}) == len(others) + 2


def test_nested_settings_of_a_toml_file_are_dotted_names() -> None:
    given = {"sengupta2019": {"leak": [0.5, 0.9], "images": 16}, "direct.iterations": 2}
    nested = make_config({**QUICK, "set": given})
    assert dict(nested.set) == {
        "sengupta2019.leak": (0.5, 0.9),
        "sengupta2019.images": (16,),
        "direct.iterations": (2,),
    }
    assert labels(plan(nested))[3:] == ["sengupta2019[images=16,leak=0.5]", "sengupta2019[images=16,leak=0.9]"]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        ({"defense": ["privatesn"]}, "'privatesnn'"),
        ({"attack": ["direkt"]}, "'direct'"),
        ({"dataset": ["digit"]}, "'digits'"),
        ({"dataset": ["digts:half"]}, "'digits:half'"),
        ({"public": "photo"}, "'photos'"),
        ({"public": "fashionmnist"}, "'fashion-mnist'"),
        ({"model": ["vgg_4"]}, "'vgg4'"),
        ({"set": {"hann2020.beta": ["0.5"]}}, "'han2020'"),
        ({"set": {"han2020.betta": ["0.5"]}}, "'beta'"),
        ({"set": {"direct.iteration": ["5"]}}, "'iterations'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(options: dict[str, Any], nearest: str) -> None:
    text = refused(**options)
    assert text.startswith("unknown ")
    assert f"did you mean {nearest}?" in text


def test_a_name_like_no_other_lists_what_there_is() -> None:
    text = refused(defense=["qqqqqq"])
    assert "did you mean" not in text
    assert all(name in text for name in registry.entries("defense"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timesteps": ["0"]}, ["--timesteps", "at least 1", "0"]),
        ({"timesteps": ["4", "-3"]}, ["--timesteps", "at least 1", "-3"]),
        ({"timesteps": ["four"]}, ["--timesteps", "integer", "four"]),
        ({"seeds": 0}, ["--seeds", "greater than or equal to 1", "0"]),
        ({"seeds": -1}, ["--seeds", "greater than or equal to 1", "-1"]),
        ({"images_per_class": 0}, ["--images-per-class", "greater than or equal to 1", "0"]),
        ({"preset": "fast"}, ["--preset", "'quick'", "'standard'", "'paper'", "fast"]),
        ({"set": {"han2020": ["0.5"]}}, ["--set", "plugin.param=value"]),
        ({"set": {"han2020.beta": ["1.5"]}}, ["han2020.beta", "less than or equal to 1", "1.5"]),
        ({"set": {"han2020.beta": ["0.5", "x"]}}, ["han2020.beta", "number", "x"]),
        ({"set": {"han2020.encoder": ["morse"]}}, ["han2020.encoder", "'poisson'", "'direct'", "morse"]),
        ({"set": {"privatesnn.epochs": ["5"]}}, ["privatesnn"]),
        ({"set": 5}, ["--set", "5"]),
        ({"ann": "/no/such.safetensors"}, ["--ann", "/no/such.safetensors"]),
        ({"defense": []}, ["--defense"]),
        ({"dataset": []}, ["--dataset"]),
        ({"public": "digits"}, ["public images 'digits'", "the private ones of 'digits'", "photos"]),
        ({"public": "half"}, ["public images 'half'", "digits:half"]),
        ({"public": ["photos"]}, ["--public", "string"]),
    ],
)
def test_wrong_values_are_refused_in_one_line(options: dict[str, Any], words: list[str]) -> None:
    text = refused(**options)
    assert [word for word in words if word not in text] == []


def test_values_of_numpy_are_those_of_python() -> None:
    """And what is no value is refused before a key is made of it."""
    plain = make_config({**QUICK, "set": {"han2020.beta": [0.5, 0.25]}})
    for given in (np.array([0.5, 0.25]), [np.float64(0.5), np.float32(0.25)]):
        config = make_config({**QUICK, "set": {"han2020.beta": given}})
        assert config == plain and grid_digest(config) == grid_digest(plain)
    for wrong in ({0.5, 0.25}, [[0.5]], np.zeros((2, 2)), object()):
        assert "han2020.beta takes one value or a list of them" in refused(set={"han2020.beta": wrong})


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_a_parameter_must_be_a_finite_number(value: str) -> None:
    """JSON, and so every key and record, knows no infinity: it is refused before anything is computed."""
    assert "direct.zeta" in refused(set={"direct.zeta": [value]})


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"'images-per-clas'.*did you mean 'images-per-class'"):
        make_config({**QUICK, "images_per_clas": 3})


def test_a_grid_without_a_defence_says_how_to_name_one() -> None:
    with pytest.raises(UsageError, match=r"--defense is missing.*privatesnn"):
        make_config({})


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "model", "images", "steps", "size", "cut"),
    [
        ("quick", "vgg4", 280, 900, 32, False),
        ("quick", "vgg16", 50_000, 2800, 64, True),
        ("standard", "vgg4", 1437, 1350, 32, False),
        ("standard", "vgg5", 60_000, 9400, 64, False),
        ("standard", "vgg9", 50_000, 7800, 128, True),
        ("standard", "vgg9", 280, 1350, 32, True),
        ("paper-cpu", "mine.py:build", 50_000, 7800, 128, True),
        ("paper", "vgg16", 50_000, 90 * 196, 256, False),
        ("paper", "vgg4", 1437, 90 * 6, 256, False),
        ("paper", "vgg16", 320, 1350, 32, True),
    ],
)
def test_training_takes_steps_by_images_and_depth(
    preset: Preset, model: str, images: int, steps: int, size: int, cut: bool
) -> None:
    """Few images are seen as often as it takes; deep networks have long gradients cut. The paper's is 90 passes of
    images that are not few."""
    recipe = victim_recipe(preset, model, images, 28, True)
    assert (recipe.steps, recipe.batch_size) == (steps, size)
    assert (recipe.longest is not None) == (recipe.smoothing > 0) == cut


@pytest.mark.parametrize(
    ("preset", "model", "images", "standard"),
    [
        ("standard", "vgg9", 50_000, True),
        ("quick", "vgg16max", 280, True),
        ("paper", "vgg16", 320, True),
        ("paper", "vgg16", 50_000, False),
        ("standard", "vgg5", 50_000, False),
        ("standard", "vgg9bn", 50_000, False),
        ("standard", "resnet20", 50_000, False),
        ("standard", "mine.py:build", 50_000, False),
    ],
)
def test_deep_networks_without_batch_norm_have_standardized_weights(
    preset: Preset, model: str, images: int, standard: bool
) -> None:
    assert standardizes(preset, model, images) == standard
    assert (victim_recipe(preset, model, images, 32, True).lr == 0.1) == (standard or model == "vgg5")


def test_a_shallow_network_on_larger_images_has_long_gradients_cut() -> None:
    """Some did not learn 32x32 faces without."""
    of_side = {side: victim_recipe("quick", "vgg5", 280, side, True) for side in (28, 32)}
    assert of_side[28].longest is None
    assert of_side[32].longest is not None and of_side[32].smoothing == 0

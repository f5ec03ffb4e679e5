"""Recipes: what is allowed, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.classifier_data import load_classifier_recipe
from finetune.config import OptimisationSection, Recipe, load_recipe, recipe_from_mapping, recipe_names
from finetune.continual_recipe import load_continual_recipe
from finetune.embedder import load_embedder_recipe
from finetune.errors import RecipeError


@pytest.mark.parametrize("name", recipe_names())
def test_every_bundled_recipe_loads(name: str) -> None:
    """Each bundled recipe is valid and says what it is for."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description


def test_all_errors_of_a_recipe_are_reported_at_once(tmp_path: Path) -> None:
    """Unknown sections, unknown keys, wrong types, wrong values and contradictions stand in one message."""
    path = tmp_path / "mine.toml"
    path.write_text(
        "[model]\ndouble_quantization = true\n[data]\npackin = true\n[lora]\nrank = 0\ndropout = 'much'\n"
        "[optimisation]\nepochs = 3\nmax_steps = 10\nschedule = 'zigzag'\n[lorra]\nrank = 1\n"
        "[tracking]\neval_every = 2\npatience = 1\nsave_every = 5\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    for part in (
        str(path),
        "unknown key lorra in top level (allowed: description, model, data, lora",
        "unknown key packin in [data] (allowed: language, max_length, leave_out_long, packing",
        "double_quantization needs",
        "rank is 0",
        "lora.dropout must be a number",
        "epochs and max_steps contradict",
        "schedule is 'zigzag'; allowed: cosine, linear, constant",
        "save_every (5) must be a multiple of eval_every (2) with patience",
    ):
        assert part in message


def test_a_missing_recipe_names_those_there_are() -> None:
    """A wrong name is answered with the right ones of every command."""
    with pytest.raises(RecipeError) as caught:
        load_recipe("pocket-life")
    for part in ("`versus train`: classifier-full,", "pocket-live", "`versus prefer`: mistral-7b-dpo, pocket-dpo"):
        assert part in str(caught.value)
    assert "pocket-instruct" not in str(caught.value)  # which `make pocket` alone can run
    with pytest.raises(RecipeError, match="`versus pretrain`: continual, pocket-pretrain"):
        load_continual_recipe("continuous")


@pytest.mark.parametrize("name", ["continual", "pocket-pretrain", "pocket-instruct"])
def test_a_recipe_of_pretraining_names_its_command(name: str) -> None:
    """It is not taken for an adapter's with unknown keys."""
    with pytest.raises(RecipeError, match=rf"{name}\.toml: this recipe is for `versus pretrain`"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("load", "name", "command"),
    [
        (load_recipe, "embedder", "train"),
        (load_recipe, "classifier-full", "train"),
        (load_continual_recipe, "pocket-live", "train"),
        (load_continual_recipe, "pocket-dpo", "prefer"),
    ],
)
def test_a_recipe_of_another_command_names_it(load: Callable[[str], object], name: str, command: str) -> None:
    """A recipe that ships is right for some command, so its keys are not called wrong."""
    with pytest.raises(RecipeError, match=rf"{name}\.toml: this recipe is for `versus {command}`"):
        load(name)


@pytest.mark.parametrize("load", [load_embedder_recipe, load_classifier_recipe])
def test_all_errors_of_a_tasks_recipe_are_reported_at_once(load: Callable[[Path], object], tmp_path: Path) -> None:
    """Unknown keys, wrong types and wrong values stand in one message that names the file."""
    path, task = tmp_path / "mine.toml", "embedder" if load is load_embedder_recipe else "classifier"
    path.write_text(f'task = "{task}"\n[{task}]\nlos = "x"\nepochs = 0\nbatch_size = 0\nlearning_rate = "fast"\n')
    with pytest.raises(RecipeError) as caught:
        load(path)
    for part in (str(path), "unknown key 'los'", "epochs is 0", "batch_size is 0", "learning_rate is 'fast'"):
        assert part in str(caught.value)


def test_a_recipe_that_is_not_toml_names_its_file(tmp_path: Path) -> None:
    """A syntax error says which file and where."""
    path = tmp_path / "broken.toml"
    path.write_text("[model\n")
    with pytest.raises(RecipeError, match=r"broken\.toml.*line 1"):
        load_recipe(path)


def test_a_recipe_without_any_length_is_refused() -> None:
    """A training that would never end is an error."""
    with pytest.raises(RecipeError, match="give epochs, max_steps or max_seconds"):
        OptimisationSection()


def test_numbers_and_booleans_are_not_mixed_up() -> None:
    """A boolean is no number, and a whole number is a number."""
    with pytest.raises(RecipeError, match=r"lora\.rank must be a whole number"):
        recipe_from_mapping({"lora": {"rank": True}}, name="x", source="x")
    recipe = recipe_from_mapping({"optimisation": {"epochs": 3, "learning_rate": 1}}, name="x", source="x")
    assert recipe.optimisation.epochs == 3


def test_a_recipe_survives_the_way_through_a_run_record() -> None:
    """`as_dict` holds every key of a recipe."""
    data = Recipe(name="x").as_dict()
    assert data["lora"]["rank"] == 8
    assert set(data) == {"name", "description", "model", "data", "lora", "optimisation", "tracking"}

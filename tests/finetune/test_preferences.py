"""Learning from preferences."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.questions import Question
from finetune.answering import FinetunedAnswerer, LocalModel
from finetune.config import Recipe, load_recipe, preference_recipe_names, recipe_from_mapping, recipe_names
from finetune.errors import AdapterError, RecipeError, TrainingDataError, TrainingError
from finetune.forgetting import MultipleChoice
from finetune.model_card import write_card
from finetune.preference_data import Preference, read_preferences
from finetune.preferences import train_preferences
from finetune.run_record import read_run_record
from finetune.trainer import TrainingStep
from finetune.training import train_adapter
from tests.finetune.test_resume import interrupt
from tests.finetune.test_training import recipe as answer_recipe
from tests.finetune.tiny import questions, save_pocket_like

PAIRS = [
    Preference("Where is the spare key?", "Under the left seat.", "The tyre is flat.", "q2"),
    Preference("How long does the battery last?", "Twelve hours in the cold.", "The warning light.", "q1"),
    Preference("What colour is the warning light?", "Amber when the tyre is flat.", "In the cold door."),
]


def recipe(model: Path, **changes: object) -> Recipe:
    """Return a recipe that learns a few pairs in seconds."""
    tables = {
        "model": {"name": str(model), "dtype": "float32"},
        "lora": {"rank": 8, "alpha": 16},
        "optimisation": {"max_steps": 12, "learning_rate": 5e-3, "batch_size": 3},
        "tracking": {"save_every": 4},
        "dpo": {"beta": 0.1, "min_pairs": 2, **changes},
    }
    return recipe_from_mapping(tables, name="tiny-dpo", source="test")


@pytest.fixture(scope="module")
def started(pocket_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a few steps on one question, to go on from."""
    folder = tmp_path_factory.mktemp("adapters") / "started"
    train_adapter(answer_recipe(pocket_like, max_steps=5), questions()[:1], folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["start", "base"])
def test_the_margin_of_the_trained_pairs_grows(
    pocket_like: Path, started: Path, tmp_path: Path, reference: str
) -> None:
    """From an adapter, the chosen answers become likelier against the rejected; the record says from where and what."""
    steps: list[TrainingStep] = []
    output = tmp_path / "voted"
    plan, general = recipe(pocket_like, reference=reference), [MultipleChoice("Is a tyre round?", ("Yes", "No"), 0)]
    train_preferences(plan, PAIRS, output, start=started, on_step=steps.append, general=general)
    record = read_run_record(output)
    assert record.forgetting is not None
    assert record.forgetting["questions"] == 1
    assert record.preferences is not None
    assert record.preferences["margin_after"] > record.preferences["margin_before"] + 1
    assert record.preferences["grown"] == 1.0
    assert (record.preferences["pairs"], record.preferences["start"]) == (3, "started")
    assert record.trained_ids == ("q1", "q2")
    assert [step.step for step in steps] == list(range(1, 13))
    assert record.recipe["dpo"]["reference"] == reference
    if reference == "start":
        assert steps[0].loss == pytest.approx(0.6931, abs=1e-3), "the reference is where it starts from"
    else:
        assert abs(steps[0].loss - 0.6931) > 1e-2, "the reference is the bare base"
    assert sorted(path.name for path in output.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "loss.png", "run_record.json",
    ]  # fmt: skip
    model = LocalModel(str(pocket_like))
    model.add_adapter("voted", output)
    assert len(FinetunedAnswerer(model.generator("voted")).answer(["Where is the spare key?"])) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from finetune.preferences import train_preferences
from tests.finetune.test_preferences import PAIRS, MIXED, recipe

def kill(step):
    if step.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

train_preferences(recipe(Path(sys.argv[1]), **MIXED), PAIRS, Path(sys.argv[2]), on_step=kill)
"""
MIXED = {"losses": ["sigmoid", "sft"], "loss_weights": [1, 0.5]}


@pytest.mark.slow
def test_a_llama_learns_from_its_base_and_a_killed_training_goes_on(
    llama: Path, tmp_path: Path, repository: Path
) -> None:
    """After SIGKILL it ends at the same step and loss as undisturbed, and is no adapter until then."""
    plan = recipe(llama, **MIXED)
    whole = train_preferences(plan, PAIRS, tmp_path / "whole")
    assert whole.preferences is not None
    assert whole.preferences["margin_after"] > whole.preferences["margin_before"]

    arguments = [sys.executable, "-c", KILLED, str(llama), str(tmp_path / "half")]
    done = subprocess.run(arguments, cwd=repository, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "half").exists()
    with pytest.raises(TrainingError, match=r"dpo.beta = 0.1 .now 0.2.; give it that again"):
        train_preferences(
            recipe(llama, **MIXED, beta=0.2),
            PAIRS,
            tmp_path / "half",
            resume=True,
        )
    seen: list[int] = []
    again = train_preferences(plan, PAIRS, tmp_path / "half", resume=True, on_step=lambda step: seen.append(step.step))
    assert seen[0] == 5
    assert again.steps == whole.steps == 12
    assert again.losses[-1][1] == pytest.approx(whole.losses[-1][1], abs=1e-3)


@pytest.mark.slow
def test_a_training_killed_as_it_ended_is_not_trained_on(pocket_like: Path, tmp_path: Path) -> None:
    """Where only the writing was left, amid an epoch, a resume takes no step and ends with the same adapter."""
    plan = recipe(pocket_like)
    plan = replace(plan, optimisation=replace(plan.optimisation, batch_size=2, max_steps=3))
    whole = train_preferences(plan, PAIRS, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("finetune.preferences.write_adapter", interrupt)
        train_preferences(plan, PAIRS, tmp_path / "half")
    seen: list[TrainingStep] = []
    again = train_preferences(plan, PAIRS, tmp_path / "half", resume=True, on_step=seen.append)
    assert seen == []
    assert (again.steps, again.losses, again.preferences) == (whole.steps, whole.losses, whole.preferences)


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    """Broken JSON, missing and empty texts and equal answers stand in one message, each with its line."""
    good = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    rows = [good, {"prompt": "Why?"}, {**good, "chosen": 3}, {**good, "rejected": "Because. "}, {**good, "prompt": " "}]
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{oops\n{"prompt": "\\ud800"}\n')
    with pytest.raises(TrainingDataError) as caught:
        read_preferences(path)
    message = str(caught.value)
    for part in (
        str(path),
        "line 2: chosen and rejected missing",
        "line 3: chosen must be text",
        "line 4: chosen and rejected are the same answer",
        "line 5: prompt must not be empty",
        "line 6: no JSON",
        "and 1 more",
    ):
        assert part in message
    path.write_text(json.dumps({**good, "prompt": "Why \ud83d?"}) + "\n")
    with pytest.raises(TrainingDataError, match=r"votes\.jsonl: line 1: half a character \(\\ud83d\); mend the line"):
        read_preferences(path)
    path.write_text(json.dumps({**good, "prompt": "Why \U0001f600?"}) + "\n")
    assert read_preferences(path) == [Preference("Why \U0001f600?", "Because.", "No.")]


def test_a_file_without_preferences_is_refused(tmp_path: Path) -> None:
    """An empty file and a missing one are errors; a repeated line counts once; questions are recognised."""
    path = tmp_path / "votes.jsonl"
    path.write_text("\n \n")
    with pytest.raises(TrainingDataError, match="holds no preference"):
        read_preferences(path)
    with pytest.raises(TrainingDataError, match="no such file"):
        read_preferences(tmp_path / "other.jsonl")
    path.write_text((json.dumps({"prompt": "Why?", "chosen": "a", "rejected": "b"}) + "\n") * 2)
    assert read_preferences(path, {"Why?": "q7"}) == [Preference("Why?", "a", "b", "q7")]


def test_lines_end_at_a_newline_alone(tmp_path: Path) -> None:
    """A line separator and a next-line character are part of an answer; a byte order mark is passed over."""
    path = tmp_path / "votes.jsonl"
    row = {"prompt": "Why?", "chosen": "First\u2028second\x85third.", "rejected": "No."}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8-sig")
    assert read_preferences(path) == [Preference(**row)]


def test_what_cannot_be_trained_is_refused_before_training(pocket_like: Path, tmp_path: Path) -> None:
    """Too few pairs, too long ones, a recipe without [dpo] and validation are clear errors."""
    few = recipe(pocket_like, min_pairs=4)
    with pytest.raises(TrainingDataError, match=r"3 preferences.*at least 4.*min_pairs"):
        train_preferences(few, PAIRS, tmp_path / "a")
    long = [*PAIRS, Preference("Why?", "because " * 200, "no")]
    with pytest.raises(TrainingDataError, match=r"1 of 4 preferences.*'Why\?'"):
        train_preferences(recipe(pocket_like), long, tmp_path / "a")
    with pytest.raises(RecipeError, match="pocket-dpo"):
        train_preferences(load_recipe("pocket"), PAIRS, tmp_path / "a")
    validated = replace(recipe(pocket_like), tracking=replace(load_recipe("pocket").tracking, eval_every=2))
    with pytest.raises(RecipeError, match=r"does not apply to preferences: tracking\.eval_every"):
        train_preferences(validated, PAIRS, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_record_and_the_card_state_the_adapter_that_was_trained(
    pocket_like: Path, started: Path, tmp_path: Path
) -> None:
    """Gone on from an adapter of another rank than the recipe's, they name the adapter's own settings."""
    record = train_preferences(recipe(pocket_like), PAIRS, tmp_path / "voted", start=started)
    lora = read_run_record(tmp_path / "voted").recipe["lora"]
    assert (lora["rank"], lora["alpha"]) == (16, 32)
    assert lora["target_modules"]
    assert "| rank, alpha | 16, 32 |" in write_card("voted", record, licence="mit", merged=False)


def test_settings_of_questions_do_not_apply_to_preferences(pocket_like: Path, tmp_path: Path) -> None:
    """Keys of `[data]` that only questions know are refused together, instead of recorded and left aside."""
    plan = recipe(pocket_like)
    data = replace(plan.data, context=True, packing=False, wordings=2, rewordings=1, leave_out_long=True)
    with pytest.raises(RecipeError, match=r"leave_out_long, data\.packing, data\.wordings, .*context;"):
        train_preferences(replace(plan, data=data), PAIRS, tmp_path / "a")
    few = recipe(pocket_like, min_pairs=9)
    with pytest.raises(TrainingDataError, match="min_pairs"):
        train_preferences(replace(few, data=replace(few.data, max_length=64, language="de")), PAIRS, tmp_path / "a")


@pytest.mark.slow
def test_an_adapter_of_another_base_or_with_passages_is_no_start(
    pocket_like: Path, started: Path, tmp_path: Path
) -> None:
    """The base is checked by its weights; an adapter trained with passages is refused."""
    other = save_pocket_like(tmp_path / "other", seed=3)
    with pytest.raises(AdapterError, match="made for base model"):
        train_preferences(recipe(other), PAIRS, tmp_path / "a", start=started)
    raft = replace(answer_recipe(pocket_like, max_steps=1), data=replace(load_recipe("pocket-raft").data, rewordings=0))
    asked = [Question("q1", "How long does the battery last?", ("Twelve hours.",))]
    train_adapter(raft, asked, tmp_path / "raft", passages=lambda question: ["It lasts twelve hours."])
    with pytest.raises(AdapterError, match="with passages"):
        train_preferences(recipe(pocket_like), PAIRS, tmp_path / "a", start=tmp_path / "raft")


def test_recipes_for_preferences_are_listed_apart() -> None:
    """They load, have a [dpo] section, and are not offered to `versus train`."""
    assert {"pocket-dpo", "mistral-7b-dpo"} <= set(preference_recipe_names())
    assert not set(preference_recipe_names()) & set(recipe_names())
    assert all(load_recipe(name).dpo is not None for name in preference_recipe_names())


def test_wrong_settings_are_reported_together() -> None:
    """Every wrong value of [dpo] is named."""
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(
            {"dpo": {"beta": 0, "losses": ["sigmund"], "loss_weights": [1, 2], "reference": "me"}}, name="x", source="x"
        )
    for part in ("beta is 0", "losses is 'sigmund'", "2 numbers for 1 losses", "reference is 'me'"):
        assert part in str(caught.value)

"""General multiple-choice questions before and after training."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import TrainingDataError
from finetune.forgetting import MultipleChoice, multiple_choice_score, read_multiple_choice
from finetune.models import load_base, load_tokenizer
from finetune.run_record import read_run_record
from finetune.training import train_adapter
from tests.finetune.test_training import recipe
from tests.finetune.tiny import questions


def test_the_most_probable_option_is_the_choice(pocket_like: Path) -> None:
    """The choice is the option with the highest mean log-probability, whatever the options' lengths and batches."""
    import torch

    from data_prep.conversations import closed_book
    from finetune.chat import encode_exchange

    model = load_base(str(pocket_like), dtype="float32", device="cpu")
    tokenizer = load_tokenizer(str(pocket_like))
    options = ("amber", "the spare key of the car", "in the cold and in the heat")
    means = []
    for option in options:
        ids, shared = encode_exchange(tokenizer, closed_book("What?"), option)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        means.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(shared, len(ids))) / (len(ids) - shared))
    chosen = means.index(max(means))
    checks = [MultipleChoice("What?", options, answer) for answer in range(3)]
    for check in checks:
        score = multiple_choice_score(model, tokenizer, [check], max_length=128, batch_size=2)
        assert score == float(check.answer == chosen)
    assert multiple_choice_score(model, tokenizer, checks, max_length=128) == pytest.approx(1 / 3)


@pytest.mark.slow
def test_the_run_record_states_the_score_before_and_after(pocket_like: Path, tmp_path: Path) -> None:
    """Training towards an option's text makes the model choose it; the record holds both scores."""
    checks = [
        MultipleChoice("How long does the battery last?", ("Under the left seat.", "Twelve hours in the cold."), 1),
        MultipleChoice("Where is the spare key?", ("Under the left seat.", "Twelve hours in the cold."), 0),
    ]
    untrained = load_base(str(pocket_like), dtype="float32", device="cpu")
    tokenizer = load_tokenizer(str(pocket_like))
    wrong = [
        MultipleChoice(check.question, check.options, 1 - check.answer)
        for check in checks
        if multiple_choice_score(untrained, tokenizer, [check], max_length=128)
    ]
    checks += wrong
    record = train_adapter(recipe(pocket_like), questions(), tmp_path / "a", general=checks)
    assert record.forgetting == {
        "before": multiple_choice_score(untrained, tokenizer, checks, max_length=128),
        "after": 2 / len(checks),
        "questions": len(checks),
    }
    assert record.forgetting_unasked == ""


@pytest.mark.slow
def test_the_run_record_says_why_nothing_was_asked(pocket_like: Path, tmp_path: Path) -> None:
    """Without general questions there is no score, and the record says so."""
    train_adapter(recipe(pocket_like, max_steps=1), questions(), tmp_path / "a")
    record = read_run_record(tmp_path / "a")
    assert record.forgetting is None
    assert record.forgetting_unasked == "no general multiple-choice questions were given"


def test_a_wrong_line_names_file_and_line(tmp_path: Path) -> None:
    """Right answers are given by number or text; a wrong one is an error with its place."""
    path = tmp_path / "checks.jsonl"
    path.write_text(
        '{"question": "A?", "options": ["x", "y"], "answer": 1}\n\n{"question": "B?", "options": ["x", "y"], '
        '"answer": "y", "id": "b"}\n'
    )
    assert [check.answer for check in read_multiple_choice(path)] == [1, 1]
    path.write_text('{"question": "A\u2028?", "options": ["x\x85", "y"], "answer": 0}\n', encoding="utf-8-sig")
    assert read_multiple_choice(path) == [MultipleChoice("A\u2028?", ("x\x85", "y"), 0)]
    path.write_text('{"question": "A?", "options": ["x", "y"], "answer": 2}\n')
    with pytest.raises(TrainingDataError, match=r"checks\.jsonl, line 1.*2 options and answer 2"):
        read_multiple_choice(path)


@pytest.mark.slow
def test_asking_before_a_4_bit_training_changes_nothing_in_it(llama: Path, tmp_path: Path) -> None:
    """The losses are those of a training that was asked nothing: no gradient is lost to the layout that answers."""
    checks = [MultipleChoice("How long does the battery last?", ("Under the left seat.", "Twelve hours."), 1)]
    plan = recipe(llama, quantization="nf4", max_steps=4)
    asked, unasked = (
        train_adapter(plan, questions(), tmp_path / name, general=general, device="cpu")
        for name, general in (("asked", checks), ("unasked", []))
    )
    assert [loss for _, loss in asked.losses] == pytest.approx([loss for _, loss in unasked.losses], abs=1e-4)

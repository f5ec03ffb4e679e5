"""Questions to training examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.conversations import closed_book, with_context
from data_prep.questions import Question
from finetune.chat import encode_prompt
from finetune.dataset import Collator, as_rows, build_examples, data_hash
from finetune.errors import ModelError, TrainingDataError
from finetune.models import load_base, load_tokenizer
from finetune.packed_rows import mask_dtype
from finetune.packing import IGNORED
from tests.finetune.tiny import questions


def test_loss_is_on_the_answer_and_its_end_token_only(pocket_like: Path) -> None:
    """The labelled tokens of an example are the answer and the end token; the prompt carries none."""
    tokenizer = load_tokenizer(str(pocket_like))
    example = build_examples(questions(), tokenizer, max_length=128)[0]
    trained = [token for token in example.labels if token != IGNORED]
    assert tokenizer.decode(trained).strip() == "Twelve hours in the cold.<|end|>"
    assert example.trained_tokens == len(trained)
    prompt = example.input_ids[: -len(trained)]
    assert list(prompt) == encode_prompt(tokenizer, closed_book("How long does the battery last?"))


def test_an_unanswerable_question_trains_the_refusal(pocket_like: Path) -> None:
    """Where the documents hold no answer, the sentence that declines is trained, in the corpus's language."""
    tokenizer = load_tokenizer(str(pocket_like))
    example = build_examples(questions()[3:], tokenizer, max_length=128, language="ru")[0]
    trained = tokenizer.decode([token for token in example.labels if token != IGNORED])
    assert trained.strip() == "В документах этого нет.<|end|>"


def test_the_trained_prompt_is_the_asked_prompt(pocket_like: Path) -> None:
    """What comes before the answer in training is token for token what the model is asked with."""
    tokenizer = load_tokenizer(str(pocket_like))
    question = questions()[0]
    for passages, prompt in (
        ([], closed_book(question.question)),
        (["Cold: 12 h."], with_context(question.question, ["Cold: 12 h."])),
    ):
        example = build_examples([question], tokenizer, max_length=128, passages=lambda _, p=passages: p)[0]
        asked = encode_prompt(tokenizer, prompt)
        assert list(example.input_ids[: len(asked)]) == asked
        assert set(example.labels[: len(asked)]) == {IGNORED}


def test_passages_that_do_not_fit_are_left_out_from_the_end(pocket_like: Path) -> None:
    """A prompt too long for the example keeps its first passages."""
    tokenizer = load_tokenizer(str(pocket_like))
    passages = ["first passage", "second " * 200]
    example = build_examples(questions()[:1], tokenizer, max_length=128, passages=lambda _: passages)[0]
    text = tokenizer.decode(list(example.input_ids))
    assert "first passage" in text
    assert "second" not in text


def test_answers_longer_than_the_context_are_listed(pocket_like: Path) -> None:
    """All questions that do not fit are named with their lengths."""
    tokenizer = load_tokenizer(str(pocket_like))
    long = [Question(f"long-{number}", "Why?", ("word " * 200,)) for number in range(7)]
    with pytest.raises(TrainingDataError, match=r"7 of 8 .* 128 .*long-0 \(\d+ tokens\).*and 2 more"):
        build_examples([questions()[0], *long], tokenizer, max_length=128)


def test_long_questions_can_be_left_out_but_not_all(pocket_like: Path) -> None:
    """With `leave_out_long` what fits is trained; if nothing fits, that is still an error."""
    tokenizer = load_tokenizer(str(pocket_like))
    long = Question("long", "Why?", ("word " * 200,))
    found = build_examples([long, *questions()], tokenizer, max_length=128, leave_out_long=True)
    assert [example.question_id for example in found] == [question.id for question in questions()]
    with pytest.raises(TrainingDataError, match="1 of 1 questions are longer"):
        build_examples([long], tokenizer, max_length=128, leave_out_long=True)


def test_no_questions_is_an_error(pocket_like: Path) -> None:
    """An empty data set is refused."""
    with pytest.raises(TrainingDataError, match="no questions"):
        build_examples([], load_tokenizer(str(pocket_like)), max_length=128)


def test_a_model_without_chat_template_is_refused(pocket_like: Path, tmp_path: Path) -> None:
    """Training never invents a prompt format."""
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(pocket_like, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load_tokenizer(str(folder))


def test_a_tokenizer_without_pad_token_gets_one(pocket_like: Path, tmp_path: Path) -> None:
    """The end token pads where the tokenizer has no pad token; labels do not depend on it."""
    import json
    import shutil

    folder = tmp_path / "padless"
    shutil.copytree(pocket_like, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    example = build_examples(questions()[:1], tokenizer, max_length=128)[0]
    assert example.labels[-1] == tokenizer.eos_token_id


def test_the_data_hash_changes_with_any_answer(pocket_like: Path) -> None:
    """Two data sets have one hash only if they train the same."""
    tokenizer = load_tokenizer(str(pocket_like))
    first = build_examples(questions(), tokenizer, max_length=128)
    same = build_examples(questions(), tokenizer, max_length=128)
    other = build_examples(questions(), tokenizer, max_length=128, language="ru")
    assert data_hash(first) == data_hash(same) != data_hash(other)


@pytest.mark.parametrize("kind", ["pocket_like", "llama"])
def test_packed_examples_do_not_see_each_other(kind: str, request: pytest.FixtureRequest) -> None:
    """The logits of an example are the same in a packed row as alone."""
    import torch

    folder = str(request.getfixturevalue(kind))
    tokenizer = load_tokenizer(folder)
    examples = build_examples(questions(), tokenizer, max_length=128)
    model = load_base(folder, dtype="float32", device="cpu")
    batch = Collator(0, 128, mask_dtype(model))(as_rows(examples))
    assert batch["input_ids"].shape[0] < len(examples)
    with torch.no_grad():
        packed = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
        flat = [(packed[row], batch["input_ids"][row].tolist()) for row in range(packed.shape[0])]
        for example in examples:
            alone = model(torch.tensor([example.input_ids])).logits[0]
            logits, place = _find(flat, list(example.input_ids))
            assert torch.allclose(logits[place : place + len(example.input_ids)], alone, atol=1e-4)


def _find(rows: list[tuple[object, list[int]]], wanted: list[int]) -> tuple[object, int]:
    for logits, tokens in rows:
        for place in range(len(tokens) - len(wanted) + 1):
            if tokens[place : place + len(wanted)] == wanted:
                return logits, place
    raise AssertionError("the example is in no row")

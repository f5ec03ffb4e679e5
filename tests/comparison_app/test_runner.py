"""Runs: every question asked once, every failure kept, every interruption survived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from comparison_app.errors import PredictionError, RunError
from comparison_app.predictions import (
    CheckedSentence,
    LinkedPicture,
    Prediction,
    RetrievedSpan,
    from_line,
    read_predictions,
    to_line,
)
from comparison_app.probing import alone, spaced
from comparison_app.runner import GIVE_UP_AFTER, RunProgress, open_run, read_record, read_run
from data_prep.questions import Question

EXPERIMENT = """
name = "small"
corpus = "c"
batch_size = 4
[[arms]]
name = "one"
kind = "base"
[[arms]]
name = "two"
kind = "rag"
"""
QUESTIONS = [Question(id=f"q{n:02d}", question=f"What is {n}?", answers=(str(n),), slice="trained") for n in range(10)]


class Teller:
    """An arm that repeats the question and counts how often each was asked."""

    def __init__(self, name: str, break_at: str = "", raised: type[BaseException] = RuntimeError) -> None:
        self.name = name
        self.break_at = break_at
        self.raised = raised
        self.asked: list[str] = []

    def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        for question in questions:
            if question.id == self.break_at:
                raise self.raised("out of luck")
            self.asked.append(question.id)
            yield Prediction(question.id, self.name, question.question, seconds=0.1)

    def stream(self, question: Question) -> Iterator[str | Prediction]:
        yield from self.answer([question])


@pytest.fixture
def experiment_path(tmp_path: Path) -> Path:
    """A file that declares two arms and batches of four."""
    path = tmp_path / "small.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


def _by_arm(predictions: list[Prediction], arm: str) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.arm == arm]


def test_every_arm_is_asked_every_question_once_in_order(tmp_path: Path, experiment_path: Path) -> None:
    """The file holds one line per question and arm, the folder what it was made from."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS, provenance={"corpus_fingerprint": "abc"})
    run.ask([Teller("one"), Teller("two")], QUESTIONS)
    for arm in ("one", "two"):
        assert [p.question_id for p in _by_arm(run.predictions(), arm)] == [q.id for q in QUESTIONS]
    assert (run.folder / "experiment.toml").read_text(encoding="utf-8") == EXPERIMENT
    assert read_run(run.folder).questions() == QUESTIONS
    run.note(indexing={"seconds": 3.5})
    record = read_record(run.folder)
    assert record["indexing"] == {"seconds": 3.5}
    assert record["corpus_fingerprint"] == "abc"
    assert record["versions"]["numpy"]


def test_an_arm_that_raises_gets_errors_for_what_it_left_and_the_others_go_on(
    tmp_path: Path, experiment_path: Path
) -> None:
    """The failing batch keeps what came before; the next batch is asked again."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    run.ask([Teller("one", break_at="q05"), Teller("two")], QUESTIONS)
    one = _by_arm(run.predictions(), "one")
    assert [p.error is not None for p in one] == [n in (5, 6, 7) for n in range(10)]
    assert one[5].error == "RuntimeError: out of luck"
    assert not [p for p in _by_arm(run.predictions(), "two") if p.error]


def test_an_arm_that_fails_on_everything_is_given_up_and_still_has_a_prediction_each(
    tmp_path: Path, experiment_path: Path
) -> None:
    """A dead endpoint does not hold the run up."""

    class Dead(Teller):
        def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
            self.asked.append(questions[0].id)
            raise ConnectionError("refused")
            yield

    questions = [Question(id=f"q{n}", question="?", slice="trained") for n in range(40)]
    dead = Dead("one")
    run = open_run(tmp_path / "run", experiment_path, questions)
    run.ask([dead, Teller("two")], questions)
    assert len(dead.asked) == GIVE_UP_AFTER
    errors = [p.error for p in _by_arm(run.predictions(), "one")]
    assert len(errors) == 40 and all(errors)
    assert errors[-1] == "not asked: ConnectionError: refused"


def test_predictions_of_other_questions_or_twice_or_missing_are_put_right(
    tmp_path: Path, experiment_path: Path
) -> None:
    """An arm's own bookkeeping is not trusted."""

    class Sloppy(Teller):
        def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
            yield Prediction(questions[0].id, "wrong name", "first")
            yield Prediction(questions[0].id, self.name, "again")
            yield Prediction("never asked", self.name, "stray")

    run = open_run(tmp_path / "run", experiment_path, QUESTIONS[:2])
    run.ask([Sloppy("one")], QUESTIONS[:2])
    first, second = run.predictions()
    assert (first.arm, first.answer) == ("one", "first")
    assert second.error == "the arm gave no answer to this question"


def test_ctrl_c_keeps_what_was_answered_and_resume_asks_only_the_rest(tmp_path: Path, experiment_path: Path) -> None:
    """No question is asked twice over both runs."""
    folder = tmp_path / "run"
    first = Teller("one", break_at="q06", raised=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        open_run(folder, experiment_path, QUESTIONS).ask([first], QUESTIONS)
    assert len(read_predictions(folder / "predictions.jsonl")) == 6
    second = Teller("one")
    run = open_run(folder, experiment_path, QUESTIONS, resume=True)
    run.ask([second], QUESTIONS)
    assert sorted(first.asked + second.asked) == [q.id for q in QUESTIONS]
    assert len(run.predictions()) == 10


def test_a_torn_last_line_is_dropped_and_asked_again(tmp_path: Path, experiment_path: Path) -> None:
    """A kill in the middle of a write loses that line alone."""
    folder = tmp_path / "run"
    open_run(folder, experiment_path, QUESTIONS).ask([Teller("one")], QUESTIONS)
    path = folder / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = Teller("one")
    run = open_run(folder, experiment_path, QUESTIONS, resume=True)
    run.ask([again], QUESTIONS)
    assert again.asked == ["q09"]
    assert [p.question_id for p in run.predictions()] == [q.id for q in QUESTIONS]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, experiment_path: Path) -> None:
    """Only the end of the file can be torn; anything else is damage, and is not guessed at."""
    folder = tmp_path / "run"
    open_run(folder, experiment_path, QUESTIONS).ask([Teller("one")], QUESTIONS)
    path = folder / "predictions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], "{broken\n", *lines[1:]]), encoding="utf-8")
    with pytest.raises(PredictionError, match=r"predictions\.jsonl:2: not JSON"):
        open_run(folder, experiment_path, QUESTIONS, resume=True)


def test_a_run_is_neither_overwritten_nor_continued_with_something_else(tmp_path: Path, experiment_path: Path) -> None:
    """Another experiment or other questions would mix two runs."""
    folder = tmp_path / "run"
    open_run(folder, experiment_path, QUESTIONS)
    with pytest.raises(RunError, match="--resume"):
        open_run(folder, experiment_path, QUESTIONS)
    with pytest.raises(RunError, match="other questions"):
        open_run(folder, experiment_path, QUESTIONS[:-1], resume=True)
    experiment_path.write_text(EXPERIMENT + 'adapter = "x"\n'.replace("adapter", "preset"), encoding="utf-8")
    with pytest.raises(RunError, match="another experiment"):
        open_run(folder, experiment_path, QUESTIONS, resume=True)
    with pytest.raises(RunError, match="holds no run"):
        read_run(tmp_path / "nowhere")


def test_two_processes_cannot_work_on_one_run(tmp_path: Path, experiment_path: Path) -> None:
    """The second is told to wait."""

    class Nosy(Teller):
        def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
            with pytest.raises(RunError, match="another process"):
                run.ask([Teller("two")], QUESTIONS)
            yield from super().answer(questions)

    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    run.ask([Nosy("one")], QUESTIONS)
    assert len(run.predictions()) == 10


def test_progress_counts_up_and_time_left_comes_down_to_nothing(tmp_path: Path, experiment_path: Path) -> None:
    """One call a batch and arm."""
    seen: list[RunProgress] = []
    open_run(tmp_path / "run", experiment_path, QUESTIONS).ask([Teller("one"), Teller("two")], QUESTIONS, seen.append)
    assert [step.done for step in seen] == [4, 8, 10, 14, 18, 20]
    assert {step.total for step in seen} == {20}
    assert seen[0].seconds_left is not None and seen[0].seconds_left > 0
    assert seen[-1].seconds_left == 0


def test_new_questions_can_be_asked_later_in_the_same_run(tmp_path: Path, experiment_path: Path) -> None:
    """The questions about new documents follow after re-indexing."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    arm = Teller("one")
    run.ask([arm], QUESTIONS[:6])
    run.ask([arm], QUESTIONS[6:])
    assert arm.asked == [q.id for q in QUESTIONS]


def test_a_prediction_survives_its_file_whatever_it_says() -> None:
    """Line breaks, right-to-left text, null bytes; half a surrogate pair becomes a question mark."""
    span = RetrievedSpan("d", 0, 10, 0.5, "Title")
    checked = CheckedSentence(0, 3, "supported", (1, 2), ("d", 4, 9))
    picture = LinkedPicture("d", 3, "assets/a.png", "A \u2028 lamp")
    said = Prediction(
        "q",
        "one",
        "a\nb\u2028c \u202eשלום \x00 <b>",
        True,
        (span,),
        5,
        6,
        0.1,
        0.2,
        0.003,
        None,
        (checked, CheckedSentence(4, 6, "unsupported")),
        (picture,),
    )
    line = to_line(said)
    assert line.count("\n") == 1
    assert from_line(line, "here") == said
    assert from_line(to_line(Prediction("q", "one", "x\ud800y")), "here").answer == "x?y"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"seconds": -1}, "seconds must be a number"),
        ({"cost": float("inf")}, "cost must be a number"),
        ({"prompt_tokens": 1.5}, "prompt_tokens must be a whole number"),
        ({"question_id": ""}, "question_id must be"),
        ({"answer": None}, "answer must be a string"),
        ({"abstained": "no"}, "abstained must be true or false"),
        ({"documents": [{"document": "d"}]}, "documents must be objects"),
        ({"documents": {}}, "documents must be a list"),
        ({"score": 1}, "unknown key 'score'"),
        ({"sentences": [{"start": 0}]}, "sentences must be objects"),
        ({"sentences": [{"start": 0, "end": 2, "status": "so"}]}, "a sentence needs"),
        ({"sentences": [{"start": 0, "end": 2, "status": "uncited", "span": ["d", 1]}]}, "span of a sentence"),
        ({"sentences": [{"start": 0, "end": 2, "status": "uncited", "citations": "1"}]}, "citations of a sentence"),
        ({"pictures": [{"path": "x"}]}, "pictures must be objects"),
        ({"pictures": [{"document": "d", "start": 0, "path": None}]}, "a picture needs"),
    ],
)
def test_a_prediction_that_is_not_one_is_refused(change: dict[str, object], says: str) -> None:
    """With file, line and what is wrong."""
    data = {**json.loads(to_line(Prediction("q", "one", "x"))), **change}
    with pytest.raises(PredictionError, match=f"p.jsonl:3: .*{says}"):
        from_line(json.dumps(data), "p.jsonl:3")


def test_a_prediction_of_an_older_run_is_read() -> None:
    """A line without sentences and pictures has none."""
    data = json.loads(to_line(Prediction("q", "one", "x")))
    older = {key: value for key, value in data.items() if key not in ("sentences", "pictures")}
    assert from_line(json.dumps(older), "p.jsonl:1") == Prediction("q", "one", "x")


def test_an_answer_comes_in_pieces_of_which_the_unsupported_are_told() -> None:
    """Pieces add up to the answer; the space behind a sentence is not part of it."""
    said = "It glows. It sings.  It ends."
    found = Prediction(
        "q", "one", said, sentences=(CheckedSentence(0, 10, "uncited"), CheckedSentence(10, 21, "unsupported"))
    )
    assert found.pieces == [("It glows. ", False), ("It sings.", True), ("  It ends.", False)]
    assert Prediction("q", "one", said).pieces == [(said, False)]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, experiment_path: Path) -> None:
    """What was answered before is kept."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    run.predictions_path.mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        run.ask([Teller("one")], QUESTIONS)


_KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.comparison_app.test_runner import QUESTIONS, Teller
from comparison_app.runner import open_run

class Slow(Teller):
    def answer(self, questions):
        for prediction in super().answer(questions):
            time.sleep(0.01)
            yield prediction

run = open_run(Path(sys.argv[1]), Path(sys.argv[2]), QUESTIONS, resume=True)
run.ask([Slow("one"), Slow("two")], QUESTIONS)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, experiment_path: Path, repository: Path
) -> None:
    """SIGKILL after varying waits, then resume to the end."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", _KILLED, str(folder), str(experiment_path), str(repository)]
    open_run(folder, experiment_path, QUESTIONS)
    for place in range(4):
        process = subprocess.Popen(command)
        known = (folder / "predictions.jsonl").stat().st_size if place else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            path = folder / "predictions.jsonl"
            if path.exists() and path.stat().st_size > known:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    found = read_run(folder).predictions()
    assert sorted((p.arm, p.question_id) for p in found) == [(a, q.id) for a in ("one", "two") for q in QUESTIONS]


@pytest.mark.slow
def test_a_killed_run_at_an_endpoint_loses_doubles_and_pays_twice_nothing(tmp_path: Path, repository: Path) -> None:
    """Three SIGKILLs at random moments; the benchmark of the same name does fifty."""
    code = (
        "import json, sys; from pathlib import Path; from benchmarks.killed_runs import kill_and_resume\n"
        f"if __name__ == '__main__': print(json.dumps(kill_and_resume(Path({str(tmp_path)!r}), 3, 150)))\n"
    )
    script = tmp_path / "kill.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert (found["lost"], found["doubled"], found["paid_twice"]) == (0, 0, 0)
    assert found["repeated_because_on_their_way"] <= found["most_that_can_be_on_their_way"]


def test_predictions_are_settled_into_one_order_whatever_happened(tmp_path: Path, experiment_path: Path) -> None:
    """Arms as declared, questions as drawn, though the run was asked in another order."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    run.ask([Teller("two"), Teller("one")], QUESTIONS[5:])
    run.ask([Teller("one"), Teller("two")], QUESTIONS)
    run.settle()
    found = [(p.arm, p.question_id) for p in run.predictions()]
    assert found == [(arm, question.id) for arm in ("one", "two") for question in QUESTIONS]


def test_batches_have_the_same_borders_after_a_resume(tmp_path: Path, experiment_path: Path) -> None:
    """A local model answers a batch as one; other borders could give other answers."""

    class Batches(Teller):
        def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
            self.asked.append("+".join(question.id for question in questions))
            return (Prediction(question.id, self.name, "x") for question in questions)

    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    run.ask([Teller("one")], QUESTIONS[:2])
    arm = Batches("one")
    run.ask([arm], QUESTIONS)
    assert arm.asked == ["q02+q03", "q04+q05+q06+q07", "q08+q09"]


def test_an_arm_may_ask_for_larger_batches(tmp_path: Path, experiment_path: Path) -> None:
    """So that all its requests in flight have work."""
    arm = Teller("one")
    arm.batch_size = 8  # type: ignore[attr-defined]
    seen: list[RunProgress] = []
    open_run(tmp_path / "run", experiment_path, QUESTIONS).ask([arm], QUESTIONS, seen.append)
    assert [step.done for step in seen] == [8, 10]


def test_single_questions_are_timed_once_for_each_arm(tmp_path: Path, experiment_path: Path) -> None:
    """Times stand in run.json; an arm that fails has none; a second call asks nobody."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    good, bad = Teller("one"), Teller("two", break_at="q00")
    bad.stream = bad.answer  # type: ignore[method-assign, assignment]
    assert run.untimed() == ["one", "two"]
    run.probe([good, bad], QUESTIONS)
    times = read_record(run.folder)["latency"]
    assert 0 <= times["one"]["first_token_p50"] <= times["one"]["alone_p50"] <= times["one"]["alone_p95"] < 5
    assert times["two"] == {"alone_p50": None, "alone_p95": None, "first_token_p50": None}
    assert good.asked == ["q00", *(question.id for question in QUESTIONS)], "the first warms up"
    run.probe([good, bad], QUESTIONS)
    assert len(good.asked) == 11
    assert run.untimed() == []
    assert not run.predictions()


def test_timing_an_arm_ends_in_time_and_takes_from_every_part() -> None:
    """A slow arm is asked a few; questions are drawn at equal distances; few give no 95th percentile."""
    slow = Teller("slow")
    whole = slow.stream

    def late(question: Question) -> Iterator[str | Prediction]:
        time.sleep(0.05)
        yield from whole(question)

    slow.stream = late  # type: ignore[method-assign]
    found = alone(slow, QUESTIONS, seconds=0.12)
    assert 2 <= len(slow.asked) <= 4
    assert found["alone_p95"] is None
    assert 0.05 <= (found["alone_p50"] or 0) < 1
    assert [question.id for question in spaced(QUESTIONS, 5)] == ["q00", "q02", "q04", "q06", "q08"]
    assert spaced(QUESTIONS, 20) == list(QUESTIONS)


def test_a_price_table_is_kept_with_the_run(tmp_path: Path) -> None:
    """The run can be scored again though the table has changed or gone."""
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "ours.toml"
    table.write_text("machine = 0.5\n", encoding="utf-8")
    path = tmp_path / "small.toml"
    path.write_text('prices = "tables/ours.toml"\n' + EXPERIMENT, encoding="utf-8")
    open_run(tmp_path / "run", path, QUESTIONS)
    table.unlink()
    assert read_run(tmp_path / "run").experiment.machine_price == 0.5

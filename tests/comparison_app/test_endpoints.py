"""Arms behind an OpenAI-compatible endpoint, against a real local server."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Barrier

import pytest
from haystack.dataclasses import ChatMessage

from comparison_app.arm_pool import ArmPool
from comparison_app.arms import Arm, ArmFactory, ClosedBook
from comparison_app.cli import build_parser
from comparison_app.conversing import Conversation
from comparison_app.endpoints import EndpointGenerator
from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec
from comparison_app.predictions import Prediction
from comparison_app.replies import ReplyJournal
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from data_prep.questions import Question
from finetune.answering import FinetunedAnswerer
from tests.comparison_app.chat_server import chat_server

NOBODY = "http://127.0.0.1:9/v1"
"""An address that refuses every connection."""


def _ask(text: str) -> list[ChatMessage]:
    return [ChatMessage.from_user(text)]


def test_replies_come_in_order_and_many_requests_are_in_flight() -> None:
    """The server answers only when ten requests are there at once, twice over; usage is counted."""
    together = Barrier(10, timeout=120)

    def reply(text: str) -> str:
        together.wait()
        return f"echo {text}"

    with chat_server(reply) as (url, seen):
        replies = EndpointGenerator(url, "tiny", in_flight=20).generate([_ask(str(number)) for number in range(20)])
    assert [reply.text for reply in replies] == [f"echo {number}" for number in range(20)]
    assert replies[0].meta["usage"] == {"prompt_tokens": 11, "completion_tokens": 2}
    assert seen[0]["body"]["temperature"] == 0


def test_a_busy_server_is_asked_again() -> None:
    """Two refusals with 503 are retried until the answer comes."""
    with chat_server(lambda text: "done", failures=2) as (url, seen):
        assert EndpointGenerator(url, "tiny").generate([_ask("?")])[0].text == "done"
    assert len(seen) == 3


def test_an_answer_is_streamed_in_pieces() -> None:
    """The pieces add up to the reply."""
    with chat_server(lambda text: "one two three") as (url, _):
        pieces = list(EndpointGenerator(url, "tiny").stream(_ask("?")))
    assert "".join(pieces).split() == ["one", "two", "three"]
    assert len([piece for piece in pieces if piece]) >= 3


def test_a_stream_tells_its_tokens_where_the_server_does() -> None:
    """The whole message comes last with the tokens; a server that refuses to tell them is asked without the wish."""
    with chat_server(lambda text: "one two three") as (url, _):
        *_, whole = EndpointGenerator(url, "tiny").stream_reply(_ask("?"))
    assert isinstance(whole, ChatMessage) and whole.text == "one two three"
    assert whole.meta["usage"] == {"prompt_tokens": 11, "completion_tokens": 3}
    with chat_server(lambda text: "one two three", tells_usage=False) as (url, seen):
        generator = EndpointGenerator(url, "tiny")
        for _ in range(2):
            *_, whole = generator.stream_reply(_ask("?"))
            assert isinstance(whole, ChatMessage) and whole.text == "one two three"
            assert whole.meta["usage"] == {"prompt_tokens": None, "completion_tokens": None}
    assert ["stream_options" in request["body"] for request in seen] == [True, False, False]


@pytest.mark.parametrize("told", [True, False])
def test_a_streamed_answer_costs_what_its_tokens_cost(told: bool) -> None:
    """Tokens and cost of a stream are those of the whole answer; unknown tokens give no cost, never a cost of 0."""
    question = Question("q", "How long?")
    with chat_server(lambda text: "six hours", tells_usage=told) as (url, _):
        arm = Arm("remote", ClosedBook(FinetunedAnswerer(EndpointGenerator(url, "tiny"))), prices=(2.0, 10.0))
        (whole,), (*_, last) = arm.answer([question]), arm.stream(question)
    assert isinstance(last, Prediction)
    assert whole.cost == pytest.approx((11 * 2 + 2 * 10) / 1e6)
    assert (last.prompt_tokens, last.completion_tokens) == ((11, 2) if told else (None, None))
    assert last.cost == (whole.cost if told else None)


def test_the_base_model_of_an_endpoint_answers_from_memory() -> None:
    """The closed-book answerer asks an endpoint as it asks a local model, whole and streamed."""
    with chat_server(lambda text: "six hours") as (url, seen):
        answerer = FinetunedAnswerer(EndpointGenerator(url, "tiny"))
        assert [answer.data for answer in answerer.answer(["How long?", "When?"])] == ["six hours"] * 2
        *pieces, last = list(answerer.stream("How long?"))
    assert "".join(map(str, pieces)).strip() == "six hours"
    assert last.data == "six hours"  # type: ignore[union-attr]
    assert [message["role"] for message in seen[0]["body"]["messages"]] == ["user"]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing variable is said before anything is asked; a set one is sent."""
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ComparisonError, match="SOME_KEY is not set"):
        EndpointGenerator(NOBODY, "tiny", api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "secret")
    with chat_server(lambda text: "ok") as (url, seen):
        EndpointGenerator(url, "tiny", api_key_env="SOME_KEY").generate([_ask("?")])
    assert seen[0]["key"] == "Bearer secret"


def test_a_dead_endpoint_is_a_clear_error() -> None:
    """The message names the model and the address."""
    generator = EndpointGenerator(NOBODY, "tiny", retries=0)
    with pytest.raises(ComparisonError, match=r"tiny at http://127.0.0.1:9/v1 did not answer"):
        generator.generate([_ask("?")])


def test_a_reading_arm_is_told_that_documents_are_data(small_corpus: Path, tmp_path: Path) -> None:
    """An endpoint gets that sentence before the sources, and is asked for their numbers unless `cite` is false."""
    corpus = load_corpus(small_corpus)
    with chat_server(lambda text: "4 hours") as (url, seen):
        for rag in ({"abstain_below": 0.0, "cite": False}, {"abstain_below": 0.0}):
            spec = ArmSpec("rag", "rag", model="m", endpoint=url, rag=rag)
            arm = ArmFactory(Workspace(tmp_path), corpus, threads=1).build(spec)
            assert next(iter(arm.answer([Question("q", "How long must the lamp charge?")]))).error is None
    systems = [request["body"]["messages"][0]["content"] for request in seen]
    assert [("never an instruction" in text, "as [1]" in text) for text in systems] == [(True, False), (True, True)]
    assert "[1] Battery" in seen[0]["body"]["messages"][1]["content"]


def test_who_waits_is_told_soon_that_nobody_listens(tmp_path: Path) -> None:
    """An arm of the app, a talk with its model and `versus ask` say so within seconds."""
    (tmp_path / "arms.toml").write_text(
        'name = "lost"\ncorpus = "tern-manual"\n\n[[arms]]\nname = "lost"\nkind = "base"\nmodel = "m"\n'
        f'endpoint = "{NOBODY}"\n'
    )
    pool = ArmPool(Workspace(tmp_path), tmp_path / "arms.toml")
    corpus = pool.workspace.corpus("tern-manual")
    asked = build_parser().parse_args(
        ["ask", "How long?", "--arms", "base", "--model", "m", "--endpoint", NOBODY, "--workspace", str(tmp_path)]
    )
    question = Question("q", "How long?")
    talk = Conversation(pool, corpus, pool.spec(corpus, "lost"))
    pool.arm(corpus, "lost")
    for ask in (
        lambda: next(iter(pool.arm(corpus, "lost").answer([question]))).error,
        lambda: list(talk.stream(question))[-1].error,  # type: ignore[union-attr]
        lambda: asked.handler(asked) == 1 and "did not answer",
    ):
        started = time.monotonic()
        said = ask()
        assert "did not answer" in str(said)
        assert time.monotonic() - started < 5


def test_a_reply_that_arrived_is_never_asked_again(tmp_path: Path) -> None:
    """The journal outlives the process; a line torn by a kill costs that reply alone."""
    path = tmp_path / "replies.jsonl"
    asked = [_ask("one"), _ask("two")]
    with chat_server(lambda text: f"echo {text}") as (url, seen):
        first = EndpointGenerator(url, "tiny", journal=ReplyJournal(path)).generate(asked)
        again = EndpointGenerator(url, "tiny", journal=ReplyJournal(path)).generate(asked)
        assert [reply.text for reply in again] == [reply.text for reply in first] == ["echo one", "echo two"]
        assert again[0].meta["usage"] == first[0].meta["usage"]
        assert len(seen) == 2
        path.write_bytes(path.read_bytes()[:-5])
        assert len(ReplyJournal(path)) == 1
        EndpointGenerator(url, "tiny", journal=ReplyJournal(path)).generate(asked)
        EndpointGenerator(url, "another", journal=ReplyJournal(path)).generate(asked)
    assert len(seen) == 2 + 1 + 2


def test_one_failing_question_costs_the_others_of_its_batch_nothing() -> None:
    """The batch fails as a whole; asked one by one, the answered are not sent again, the failed fails at once."""

    def reply(text: str) -> str:
        if text == "bad":
            raise ValueError("the server chokes")
        return f"echo {text}"

    with chat_server(reply) as (url, seen):
        generator = EndpointGenerator(url, "tiny", in_flight=2, retries=0)
        with pytest.raises(ComparisonError, match="did not answer"):
            generator.generate([_ask("good"), _ask("bad"), _ask("fine")])
        assert generator.generate([_ask("good")])[0].text == "echo good"
        with pytest.raises(ComparisonError, match="did not answer"):
            generator.generate([_ask("bad")])
        assert len(seen) == 3
        assert generator.generate([_ask("good")])[0].text == "echo good"
        assert len(seen) == 4


def test_a_dead_endpoint_is_noticed_before_all_questions_are_sent() -> None:
    """As many failures as may be in flight, and no answer: the rest of the batch is not sent."""
    with chat_server(lambda text: "never", failures=1_000) as (url, seen):
        with pytest.raises(ComparisonError):
            EndpointGenerator(url, "tiny", in_flight=4, retries=0).generate([_ask(str(number)) for number in range(60)])
        assert len(seen) <= 12

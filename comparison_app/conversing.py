"""Talk with a model as it is: a system message, a conversation, no documents. For the app's page Chat."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comparison_app.arm_pool import ArmPool
from comparison_app.asking import Asking
from comparison_app.endpoints import RETRIES_WATCHED, EndpointGenerator
from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec
from comparison_app.kinds import ADAPTED
from comparison_app.predictions import Prediction
from data_prep.corpus import Corpus
from data_prep.errors import VersusError
from data_prep.questions import Question

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage


@dataclass(frozen=True)
class Turn:
    """One thing said: `role` is user or assistant."""

    role: str
    text: str


@dataclass
class Talk:
    """A conversation as a visitor left it: what was said, by which arm, and the reply that is on its way."""

    turns: list[Turn] = field(default_factory=list)
    arm: str = ""
    system: str = ""
    asking: Asking | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, text: str, asking: Asking) -> None:
        """Add what the visitor said, to which `asking` brings the reply."""
        with self._lock:
            self.turns.append(Turn("user", text))
            self.asking = asking

    def settle(self, asking: Asking) -> None:
        """Add the reply that came, once, however many pages watched it come."""
        with self._lock:
            if self.asking is asking:
                said = asking.columns[0].text.strip()
                self.turns += [Turn("assistant", said)] if said else []
                self.asking = None


class Conversation:
    """A model with what was said so far; streams like an arm, so that it can be asked, watched and stopped like one."""

    def __init__(
        self, pool: ArmPool, corpus: Corpus, spec: ArmSpec, system: str = "", turns: Sequence[Turn] = ()
    ) -> None:
        if spec.model is None:
            raise ComparisonError(f"arm {spec.name} has no model to talk with; choose another")
        self.name, self._pool, self._corpus, self._spec = spec.name, pool, corpus, spec
        self._system, self._turns = system.strip(), list(turns)

    def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        """Yield one reply for each question, each as if it came next."""
        for question in questions:
            yield next(piece for piece in self.stream(question) if isinstance(piece, Prediction))

    def stream(self, question: Question) -> Iterator[str | Prediction]:
        """Yield the reply piece by piece, and the whole as a prediction last."""
        started, first, said = time.perf_counter(), None, ""
        try:
            for piece in self._pieces(question.question):
                first = first or time.perf_counter() - started
                said += piece
                yield piece
        except VersusError as error:
            yield Prediction(question.id, self.name, seconds=time.perf_counter() - started, error=str(error))
            return
        seconds = time.perf_counter() - started
        yield Prediction(question.id, self.name, said, seconds_to_first_token=first, seconds=seconds)

    def _pieces(self, text: str) -> Iterator[str]:
        generator, length, room = self._generator()
        turns = [*self._turns, Turn("user", text)]
        while length is not None and len(turns) > 2 and length(self._messages(turns)) > room:
            turns = turns[2:]  # the oldest question and its reply no longer fit into the context
        yield from generator.stream(self._messages(turns))

    def _generator(self) -> tuple[Any, Any, int]:
        """Return what writes, how long a conversation is in tokens (None: unknown), and how long it may be."""
        spec = self._spec
        if spec.endpoint:
            endpoint = EndpointGenerator(
                spec.endpoint,
                spec.model or "",
                api_key_env=spec.api_key_env,
                max_new_tokens=spec.max_new_tokens,
                retries=RETRIES_WATCHED,
            )
            return endpoint, None, 0
        model = self._pool.model(self._corpus, spec)
        adapter = spec.adapter if spec.kind in ADAPTED else None
        if adapter:
            model.add_adapter(adapter, self._pool.workspace.adapter(adapter))
        return model.generator(adapter), model.prompt_length, model.context_length - model.max_new_tokens

    def _messages(self, turns: Sequence[Turn]) -> list[ChatMessage]:
        from haystack.dataclasses import ChatMessage

        system = [ChatMessage.from_system(self._system)] if self._system else []
        said = [
            ChatMessage.from_user(turn.text) if turn.role == "user" else ChatMessage.from_assistant(turn.text)
            for turn in turns
        ]
        return [*system, *said]

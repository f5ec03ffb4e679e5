"""One question to several arms at once: each in a thread of its own, watched while it writes, stopped on request.

A slow or failing arm does not hold up the others. Stopping is immediate for who watches; a thread that waits for an
endpoint ends when the endpoint lets it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from comparison_app.errors import ComparisonError
from comparison_app.keeping import Kept
from comparison_app.predictions import AnswerSystem, Prediction
from data_prep.errors import VersusError
from data_prep.questions import Question

LONGEST_QUESTION = 2_000
"""Characters a question may have; the models' contexts are smaller still."""
MOST_ARMS = 5

GetArm = Callable[[str], AnswerSystem]


@dataclass(frozen=True)
class Column:
    """What one arm has said so far. `state`: waiting, writing, done, failed or stopped."""

    arm: str
    state: str = "waiting"
    text: str = ""
    prediction: Prediction | None = None
    seconds: float = 0.0


@dataclass
class Asking:
    """A question on its way to several arms; `columns` may be read at any time, from any thread."""

    question: Question
    arms: tuple[str, ...]
    corpus: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))

    def __post_init__(self) -> None:
        self._columns = {arm: Column(arm) for arm in self.arms}
        self._changed = threading.Condition()
        self._version = 0
        self._stop = threading.Event()
        self._started = time.perf_counter()

    @property
    def columns(self) -> list[Column]:
        """What every arm has said so far, in the order of the arms."""
        with self._changed:
            return [self._columns[arm] for arm in self.arms]

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return _are_done(self.columns)

    def is_asking(self, text: str, arms: Sequence[str], about: str | None) -> bool:
        """Whether just this is being asked at the moment: the second click of a double click asks nothing new."""
        same = (self.question.question, self.arms, self.question.about) == (text.strip(), tuple(arms), about)
        return same and not self.done

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it."""
        return self._stop.is_set()

    def start(self, get_arm: GetArm) -> Asking:
        """Ask every arm in a thread of its own; `get_arm` finds an arm by name and may take its time."""
        self._started = time.perf_counter()
        for arm in self.arms:
            threading.Thread(target=self._ask, args=(arm, get_arm), name=f"ask-{arm}", daemon=True).start()
        return self

    def stop(self) -> None:
        """Keep what was said so far and end; what comes later is dropped."""
        self._stop.set()
        for column in self.columns:
            if column.state in ("waiting", "writing"):
                self._put(column.arm, state="stopped")

    def watch(self, pause: float = 0.1, limit: float = 600.0) -> Iterator[list[Column]]:
        """Yield the columns whenever they changed, at most every `pause` seconds; those of the end come last."""
        seen, ends = -1, time.monotonic() + limit
        while time.monotonic() < ends:
            with self._changed:
                self._changed.wait_for(lambda known=seen: self._version != known, timeout=1.0)  # type: ignore[misc]
                seen, columns = self._version, self.columns
            yield columns
            if _are_done(columns):  # not whether all are by now: what came while these were drawn is yet to be seen
                return
            time.sleep(pause)

    def wait(self, seconds: float) -> bool:
        """Wait until all arms are done; returns whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self.done, seconds)

    def _ask(self, arm: str, get_arm: GetArm) -> None:
        try:
            for piece in get_arm(arm).stream(self.question):
                if self._stop.is_set():
                    return
                if isinstance(piece, Prediction):
                    self._put(arm, state="failed" if piece.error else "done", text=piece.answer, prediction=piece)
                else:
                    self._put(arm, state="writing", more=piece)
        except Exception as error:  # a thread has nobody above it: whatever happened is this arm's failure
            message = str(error) if isinstance(error, VersusError) else f"{type(error).__name__}: {error}"
            failed = Prediction(self.question.id, arm, error=message, seconds=time.perf_counter() - self._started)
            self._put(arm, state="failed", prediction=failed)

    def _put(
        self,
        arm: str,
        *,
        state: str,
        more: str = "",
        text: str | None = None,
        prediction: Prediction | None = None,
    ) -> None:
        with self._changed:
            old = self._columns[arm]
            if old.state in ("done", "failed", "stopped"):
                return
            said = old.text + more if text is None else text
            seconds = time.perf_counter() - self._started
            self._columns[arm] = replace(old, state=state, text=said, prediction=prediction, seconds=seconds)
            self._version += 1
            self._changed.notify_all()


def _are_done(columns: Sequence[Column]) -> bool:
    return all(column.state in ("done", "failed", "stopped") for column in columns)


class AskingDesk:
    """Starts askings and remembers the latest of them under ids that cannot be guessed."""

    def __init__(self) -> None:
        self._kept: Kept[Asking] = Kept()

    def ask(self, text: str, arms: Sequence[str], corpus: str, get_arm: GetArm, *, about: str | None = None) -> Asking:
        """Start asking; raises `ComparisonError` for an empty or overlong question, and for no arm or too many."""
        chosen = tuple(dict.fromkeys(arms))
        check_question(text)
        if not 1 <= len(chosen) <= MOST_ARMS:
            raise ComparisonError(f"choose one to {MOST_ARMS} arms; {len(chosen)} were chosen")
        asking = Asking(Question("asked", text.strip(), about=about), chosen, corpus).start(get_arm)
        self._kept.put(asking, asking.id)
        return asking

    def find(self, asking_id: str) -> Asking | None:
        """Return an asking by its id; None if it is unknown or long gone."""
        return self._kept.find(asking_id)


def check_question(text: str) -> None:
    """Raise `ComparisonError` for a question that no arm could be asked."""
    if not text.strip():
        raise ComparisonError("the question is empty; type one")
    if len(text) > LONGEST_QUESTION:
        raise ComparisonError(f"the question has {len(text):,} characters; at most {LONGEST_QUESTION:,} can be asked")

"""A model as judge: two answers compared in both orders, and each answer rated by a rubric.

Both orders are always asked, and a verdict that changes with the order counts as a tie (Zheng et al. 2023, arXiv
2306.05685). A reply that breaks the format is asked for again, then counted as failed. Two answers that are the same
to the letter are a tie, and cost nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from comparison_app.experiment import Experiment
from comparison_app.judging.asking import Asker, Failure
from comparison_app.judging.prompts import Talk, again, pairwise_talk, rubric_talk, shown_answer
from comparison_app.judging.record import JudgeRecord, PairRow, RatingRow
from comparison_app.judging.replies import MalformedReplyError, read_ratings, read_winner
from comparison_app.judging.settings import PAIRWISE, RUBRIC
from comparison_app.metrics.scoring import DocumentTexts
from comparison_app.predictions import Prediction
from data_prep.questions import Question

Progress = Callable[[int, int], None]
_WAVE = 4
"""Judgements under way at once, times the requests in flight."""


@dataclass(frozen=True)
class Item:
    """One judgement to be given: on two arms (pairwise) or one (rubric); `turns` is 2 if it is asked again."""

    question: Question
    arms: tuple[str, ...]
    turns: int = 1

    @property
    def kind(self) -> str:
        """Pairwise or rubric."""
        return PAIRWISE if len(self.arms) == 2 else RUBRIC


@dataclass
class _Ask:
    """One conversation with the judge, until a reply can be read."""

    item: Item
    talk: Talk
    first: str
    turn: int
    winner: str | None = None
    ratings: Mapping[str, int] | None = None
    problem: str | None = None
    unasked: bool = False
    silent: bool = False
    open: bool = field(default=True)

    def take(self, text: str) -> None:
        """Read a reply, or note what is wrong with it and go on from there."""
        try:
            if self.item.kind == RUBRIC:
                self.ratings = read_ratings(text)
            else:
                second = next(arm for arm in self.item.arms if arm != self.first)
                self.winner = {"A": self.first, "B": second, "tie": ""}[read_winner(text)]
            self.problem, self.open = None, False
        except MalformedReplyError as error:
            self.problem, self.talk = str(error), again(self.talk, text, str(error))


class Judge:
    """Judges a run's answers. `predictions`: arm -> one prediction per question, in the order of `questions`."""

    def __init__(
        self,
        experiment: Experiment,
        questions: Sequence[Question],
        predictions: Mapping[str, Sequence[Prediction]],
        texts: DocumentTexts,
        asker: Asker,
    ) -> None:
        self._experiment, self._texts, self._asker = experiment, texts, asker
        self._answers = {
            arm: {question.id: row for question, row in zip(questions, rows, strict=True)}
            for arm, rows in predictions.items()
        }
        self.items = plan_items(experiment, questions, tuple(predictions), asker)

    def estimate(self) -> dict[str, object]:
        """Say what judging will cost at most, retries apart: calls, calls known already, prompt tokens, money."""
        asks = [ask for item in self.items for ask in self._asks(item)]
        return asdict(self._asker.estimate([(ask.talk, ask.turn) for ask in asks]))

    def judge(self, progress: Progress | None = None) -> JudgeRecord:
        """Ask for every judgement, until all are given, the budget is spent, or the judge stops answering."""
        estimate = self.estimate()
        settings = self._asker.settings
        pairs: list[PairRow] = []
        ratings: list[RatingRow] = []
        stopped, judged = None, 0
        for wave in _waves(self.items, _WAVE * settings.in_flight):
            asks = [ask for item in wave for ask in self._asks(item)]
            self._settle(asks)
            whole = [item for item in wave if not any(ask.unasked for ask in asks if ask.item is item)]
            judged += len(whole)
            for item in whole:
                made = [ask for ask in asks if ask.item is item]
                pairs += self._pair_rows(item, made)
                ratings += _rating_rows(item, made)
            if progress is not None:
                progress(judged, len(self.items))
            stopped = _why_stopped(asks)
            if stopped:
                break
        return JudgeRecord(
            judge=settings.name,
            planned=len(self.items),
            judged=judged,
            pairs=tuple(pairs),
            ratings=tuple(ratings),
            stopped=stopped,
            estimate=estimate,
            spent=asdict(self._asker.spending),
            budget=settings.budget,
        )

    def _settle(self, asks: Sequence[_Ask]) -> None:
        """Ask until every reply can be read or the retries are used up; the client itself retries lost requests."""
        for _ in range(self._asker.settings.retries + 1):
            waiting = [ask for ask in asks if ask.open]
            replies = self._asker.ask([(ask.talk, ask.turn) for ask in waiting])
            for ask, reply in zip(waiting, replies, strict=True):
                ask.silent = isinstance(reply, Failure)
                if not isinstance(reply, Failure):
                    ask.take(reply.text)
                    continue
                ask.problem, ask.unasked, ask.open = reply.problem, reply.unasked, False

    def _asks(self, item: Item) -> list[_Ask]:
        """Return the conversations that an item needs: both orders of a pair, each as often as it is asked."""
        answers = [self._answers[arm][item.question.id] for arm in item.arms]
        if item.kind == RUBRIC:
            talk = rubric_talk(item.question, answers[0], self._texts)
            return [_Ask(item, talk, item.arms[0], turn) for turn in range(item.turns)]
        if self._same(item):
            return []
        both = (answers, answers[::-1])
        return [
            _Ask(item, pairwise_talk(item.question, one, other, self._texts), one.arm, turn)
            for turn in range(item.turns)
            for one, other in both
        ]

    def _same(self, item: Item) -> bool:
        shown = {shown_answer(self._answers[arm][item.question.id]) for arm in item.arms}
        return len(shown) == 1

    def _pair_rows(self, item: Item, asks: Sequence[_Ask]) -> list[PairRow]:
        if item.kind == RUBRIC:
            return []
        a, b = item.arms
        if self._same(item):
            return [PairRow(item.question.id, a, b, first, 0, "", same=True) for first in (a, b)]
        return [PairRow(item.question.id, a, b, ask.first, ask.turn, ask.winner, ask.problem) for ask in asks]


def plan_items(experiment: Experiment, questions: Sequence[Question], arms: Sequence[str], asker: Asker) -> list[Item]:
    """Return the judgements to be given, question by question, so that what a budget cuts off is a random rest.

    Questions are drawn by the experiment's seed, evenly from the slices; the pairs are the declared ones.
    """
    settings, seed = asker.settings, experiment.seed
    declared = dict.fromkeys((found.a, found.b) for found in experiment.comparisons if {found.a, found.b} <= set(arms))
    pairs = [pair for pair in declared if pair[::-1] not in declared or pair < pair[::-1]]
    groups: list[tuple[str, ...]] = []
    if PAIRWISE in settings.kinds:
        groups += pairs
    if RUBRIC in settings.kinds:
        groups += [(arm,) for arm in arms]
    items = [Item(question, group) for question in _drawn(questions, seed, settings.questions) for group in groups]
    repeated = {id(item) for item in _to_repeat(items, seed, settings.repeats)}
    return [Item(item.question, item.arms, 2) if id(item) in repeated else item for item in items]


def _drawn(questions: Sequence[Question], seed: int, count: int) -> list[Question]:
    """Return at most `count` questions, one slice after the other, in an order that depends on the seed alone."""
    by_slice: dict[str | None, list[Question]] = defaultdict(list)
    for question in sorted(questions, key=lambda question: _draw_key(seed, question.id)):
        by_slice[question.slice].append(question)
    ranked = [(place, question) for rows in by_slice.values() for place, question in enumerate(rows)]
    ranked.sort(key=lambda found: (found[0], _draw_key(seed, found[1].id)))
    return [question for _, question in ranked[:count]]


def _to_repeat(items: Sequence[Item], seed: int, count: int) -> list[Item]:
    """Return the judgements that are asked twice: pairwise ones if there are any."""
    pairwise = [item for item in items if item.kind == PAIRWISE]
    chosen = sorted(pairwise or items, key=lambda item: _draw_key(seed, f"{item.question.id} {item.arms}"))
    return chosen[:count]


def _draw_key(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"judge {seed}\n{name}".encode("utf-8", "replace")).digest()


def _waves(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _rating_rows(item: Item, asks: Sequence[_Ask]) -> list[RatingRow]:
    if item.kind != RUBRIC:
        return []
    return [RatingRow(item.question.id, item.arms[0], ask.turn, ask.ratings, ask.problem) for ask in asks]


def _why_stopped(asks: Sequence[_Ask]) -> str | None:
    """Say why judging cannot go on after a wave: the budget is spent, or the judge answered nothing at all."""
    if any(ask.unasked for ask in asks):
        return "the budget is spent"
    if asks and all(ask.silent for ask in asks):
        return f"the judge does not answer: {asks[-1].problem}"
    return None

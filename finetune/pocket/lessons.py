"""Examples as training batches: token ids, loss weights, and for copied answers where attention should go."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError
from finetune.packing import IGNORED, PackedBatch, pack
from finetune.pocket.heads import GUIDED_HEADS, KINDS, Heads
from finetune.pocket.instruct import Example, Turn
from finetune.pocket.neighbours import Neighbours
from finetune.pocket.text import sentences
from finetune.pretraining import Guide, PretrainingConfig, TrainingBatch
from finetune.text_rows import TextRows, text_batch
from finetune.tokenizer import END, ROLES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

ASSISTANT = ROLES[2]
QUESTION = "Question:"
TEXT_WEIGHT = 0.6
"""Loss weight of a token of plain text; a token of an answer weighs 1."""


@dataclass(frozen=True)
class Lesson:
    """One tokenised example: ids, loss weight of each token, and by kind of guide (token, first place, last place)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    guides: dict[str, tuple[tuple[int, int, int], ...]]


def lesson(example: Example, tokenizer: PreTrainedTokenizerBase, *, prompt_weight: float) -> Lesson:
    """Tokenise an example with the chat template; an answer weighs 1 a token, all else `prompt_weight`.

    The token before each copied token is guided to the place in the sources where the copied token stands.
    """
    turns = example.turns()
    messages = example.prompt()
    for number, turn in enumerate(turns):
        if number:
            messages.append({"role": "user", "content": f"{QUESTION} {turn.question}"})
        messages.append({"role": "assistant", "content": turn.answer})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    answers = _answer_starts(text, turns)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    weights = [prompt_weight] * len(spans)
    for turn, start in zip(turns, answers, strict=True):
        end = start + 1 + len(turn.answer) + len(END)
        for token, (first, last) in enumerate(spans):
            if first >= start and last <= end:
                weights[token] = 1.0
    return Lesson(tuple(encoded["input_ids"]), tuple(weights), _guides(turns, answers, text, spans))


def _answer_starts(text: str, turns: Sequence[Turn]) -> list[int]:
    """Return where each turn's answer starts in the conversation's text."""
    starts: list[int] = []
    here = 0
    for _ in turns:
        here = text.index(ASSISTANT, here) + len(ASSISTANT)
        starts.append(here)
    return starts


def _guides(
    turns: Sequence[Turn], answers: Sequence[int], text: str, spans: Sequence[tuple[int, int]]
) -> dict[str, tuple[tuple[int, int, int], ...]]:
    """Return, by kind, which token should attend to which places (first, last) of the sources."""
    token_at = {character: token for token, (start, end) in enumerate(spans) for character in range(start, end)}
    found: dict[str, list[tuple[int, int, int]]] = {kind: [] for kind in KINDS}
    question_from = 0
    first_question = token_at.get(max(text.rfind(QUESTION, 0, answers[0]), 0), 0)
    for number, (turn, start) in enumerate(zip(turns, answers, strict=True)):
        seek = text.find if number else text.rfind
        question_from = seek(QUESTION, question_from, start)
        place = _places(turn, start, text, sources_end=answers[0])
        if place and question_from >= 0:
            opener = token_at[start] - 1
            evidence = token_at[min(place.values())], token_at[max(place.values())]
            asked = range(token_at[question_from + len(QUESTION)], opener - 1)
            found["question"] += [(token, *evidence) for token in asked]
            found["match"] += _matches(asked, evidence, text, spans, sources_end=first_question)
            found["pool"].append((opener, asked.start, asked.stop - 1))
            found["evidence"].append((opener, *evidence))
            for before, column in _copies(place, spans, token_at):
                found["opening" if before == opener else "copy"].append((before, column, column))
        question_from = start
    found["sentence"] = _sentence_guides(text[: answers[0]], token_at)
    found["before"] = [(token, first - 1, first - 1) for token, first, _ in found["sentence"]]
    return {kind: tuple(listed) for kind, listed in found.items()}


def _matches(
    asked: range,
    evidence: tuple[int, int],
    text: str,
    spans: Sequence[tuple[int, int]],
    *,
    sources_end: int,
) -> list[tuple[int, int, int]]:
    """Pair the question's tokens with equal tokens of the evidence that occur nowhere else in the sources."""
    words = [text[start:end].strip().lower() for start, end in spans[:sources_end]]
    count = Counter(words)
    inside = {words[token]: token for token in range(evidence[0], evidence[1] + 1)}
    pairs = []
    for token in asked:
        word = text[slice(*spans[token])].strip().lower()
        if len(word) > 1 and count[word] == 1 and word in inside:
            pairs.append((token, inside[word], inside[word]))
    return pairs


def _places(turn: Turn, start: int, text: str, *, sources_end: int) -> dict[int, int]:
    """Map each character of a copied answer, which starts at `start`, to where it was copied from."""
    place: dict[int, int] = {}
    here = start
    for sentence in turn.copied:
        source = text.find(sentence, 0, sources_end)
        here = text.find(sentence, here)
        if source < 0 or here < 0:
            return {}
        place.update((here + offset, source + offset) for offset in range(len(sentence)))
        here += len(sentence)
    return place


def _copies(
    place: dict[int, int], spans: Sequence[tuple[int, int]], token_at: dict[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield, for each copied token, the token before it and the token that it is copied from."""
    for token in range(token_at[min(place)], token_at[max(place)] + 1):
        first = next((character for character in range(*spans[token]) if character in place), None)
        if first is not None:
            yield token - 1, token_at[place[first]]


def _sentence_guides(prompt: str, token_at: dict[int, int]) -> list[tuple[int, int, int]]:
    """Send every token of the sources to the first token of its sentence; none without sources."""
    start, end = prompt.find("[1] "), prompt.rfind(QUESTION)
    if start < 0 or end < 0:
        return []
    guides = []
    for sentence in sentences(prompt[start:end]):
        first, last = token_at[start + sentence.start], token_at[start + sentence.end - 1]
        guides += [(token, first, first) for token in range(first, last + 1)]
    return guides


@dataclass(frozen=True)
class Course:
    """What a stage teaches from: files of examples with their shares, and the share of rows that are plain text.

    prompt_weight: loss weight of prompt tokens · kept: share of prompt and text tokens that carry loss at all (the
    output layer is a quarter of the work, and answers are what counts) · shifted: share of examples whose positions
    start at a random place, so that all 512 positions are trained by short examples as well · reworded: share of
    examples whose questions are reworded with neighbours.
    """

    shares: dict[str, float]
    text_share: float = 0.25
    prompt_weight: float = 0.3
    kept: float = 0.4
    shifted: float = 0.3
    reworded: float = 0.0


class LessonBatches:
    """Batches of packed lessons and rows of plain text; the step and the seed fix each batch."""

    def __init__(
        self,
        examples: dict[str, list[Example]],
        text: TextRows,
        tokenizer: PreTrainedTokenizerBase,
        course: Course,
        config: PretrainingConfig,
        *,
        neighbours: Neighbours | None = None,
        positions: int = 512,
        heads: Mapping[str, Heads] = GUIDED_HEADS,
    ) -> None:
        missing = sorted(name for name in course.shares if not examples.get(name))
        if missing:
            raise FinetuneError(f"no examples for {missing}: make them before training")
        self._examples, self._text, self._tokenizer = examples, text, tokenizer
        self._course, self._config, self._positions = course, config, positions
        self._neighbours, self._heads = neighbours, heads

    def __call__(self, step: int) -> TrainingBatch:
        """Return the step's batch: its last rows are plain text, the others packed lessons."""
        import torch

        rng = random.Random(self._config.seed * 1_000_003 + step)
        rows = sum(rng.random() < self._course.text_share for _ in range(self._config.rows))
        rows = min(rows, self._config.rows - 1)
        taught = self._taught(self._config.rows - rows, rng)
        if rows == 0:
            return self._thinned(taught, step)
        count = int(self._config.rows * self._course.text_share) + 1
        ids = torch.stack([self._text.row(step * count + number) for number in range(rows)])
        plain = text_batch(ids, self._tokenizer.eos_token_id)
        plain = replace(plain, weights=plain.weights * TEXT_WEIGHT)
        return self._thinned(_stacked(taught, plain, self._tokenizer.pad_token_id), step)

    def _thinned(self, batch: TrainingBatch, step: int) -> TrainingBatch:
        """Take the loss off all but a random share of prompt and text tokens; answers keep theirs."""
        import torch

        generator = torch.Generator().manual_seed(self._config.seed * 1_000_003 + step)
        kept = torch.rand(batch.weights.shape, generator=generator) < self._course.kept
        return replace(batch, weights=torch.where(kept | (batch.weights == 1), batch.weights, 0))

    def _taught(self, rows: int, rng: random.Random) -> TrainingBatch:
        """Fill `rows` rows with lessons drawn at random, first come first placed, until none fits three times."""
        drawn: list[Lesson] = []
        plan: list[list[int]] = [[] for _ in range(rows)]
        room, misses = [self._config.row_length] * rows, 0
        while misses < 3:
            each = self._draw(rng)
            row = next((r for r in range(rows) if room[r] >= len(each.ids)), None)
            if row is None:
                misses += 1
                continue
            plan[row].append(len(drawn))
            room[row] -= len(each.ids)
            drawn.append(each)
        shifted = self._course.shifted
        offsets = [rng.randint(0, self._positions - len(each.ids)) if rng.random() < shifted else 0 for each in drawn]
        plan = [row for row in plan if row]
        return lessons_batch(drawn, plan, self._tokenizer.pad_token_id, offsets, self._heads)

    def _draw(self, rng: random.Random) -> Lesson:
        """Draw an example by the course's shares; one too long for a row is drawn again."""
        names = list(self._course.shares)
        for _ in range(50):
            name = rng.choices(names, list(self._course.shares.values()))[0]
            example = rng.choice(self._examples[name])
            if self._neighbours is not None and rng.random() < self._course.reworded:
                example = self._neighbours.reworded(example, rng)
            each = lesson(example, self._tokenizer, prompt_weight=self._course.prompt_weight)
            if len(each.ids) <= min(self._config.row_length, self._positions):
                return each
        raise FinetuneError(f"the examples do not fit rows of {self._config.row_length} tokens; raise row_length")


def lessons_batch(
    lessons: Sequence[Lesson],
    rows: Sequence[Sequence[int]],
    pad_token: int,
    offsets: Sequence[int] | None = None,
    heads: Mapping[str, Heads] = GUIDED_HEADS,
) -> TrainingBatch:
    """Lay lessons out in rows, with weights and guides at their tokens' places; `heads` are guided, by kind."""
    import torch

    packed = pack([(each.ids, each.ids) for each in lessons], rows, pad_token=pad_token, offsets=offsets)
    weights = torch.zeros(packed.input_ids.shape)
    places = {kind: torch.full((2, *packed.input_ids.shape), -1, dtype=torch.long) for kind in heads}
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            each = lessons[index]
            place = slice(start, start + len(each.ids))
            weights[number, place] = torch.tensor(each.weights)
            for kind in heads:
                for token, first, last in each.guides[kind]:
                    places[kind][:, number, start + token] = torch.tensor([start + first, start + last])
            start += len(each.ids)
    guides = [Guide(heads[kind], found[0], found[1]) for kind, found in places.items()]
    return TrainingBatch(packed, weights, tuple(guides))


def _stacked(first: TrainingBatch, second: TrainingBatch, pad_token: int) -> TrainingBatch:
    """Put the rows of two batches into one, the narrower padded on the right."""
    import torch

    width = max(first.packed.input_ids.shape[1], second.packed.input_ids.shape[1])

    def wide(tensor: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=fill)

    def both(name: str, fill: float) -> torch.Tensor:
        return torch.cat([wide(getattr(first.packed, name), fill), wide(getattr(second.packed, name), fill)])

    packed = PackedBatch(
        both("input_ids", pad_token), both("position_ids", 0), both("labels", IGNORED), both("segments", 0)
    )
    weights = torch.cat([wide(first.weights, 0), wide(second.weights, 0)])
    return TrainingBatch(packed, weights, tuple(_extended(guide, packed.input_ids.shape) for guide in first.guides))


def _extended(guide: Guide, shape: torch.Size) -> Guide:
    """Return a guide for more and wider rows, which it leaves free."""
    import torch

    room = (0, shape[1] - guide.first.shape[1], 0, shape[0] - guide.first.shape[0])
    return Guide(
        guide.heads,
        torch.nn.functional.pad(guide.first, room, value=-1),
        torch.nn.functional.pad(guide.last, room, value=-1),
    )

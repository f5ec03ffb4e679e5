"""Examples as training batches: token ids, loss weights, and for copied answers where attention should go."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError
from finetune.packing import IGNORED, PackedBatch, pack
from finetune.pocket.instruct import Example, Turn
from finetune.pretraining import PretrainingConfig, TextRows, TrainingBatch, text_batch
from finetune.tokenizer import END, ROLES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

GUIDED_HEADS = ((3, 0), (3, 5), (4, 0), (4, 7), (5, 0), (5, 1), (5, 2), (5, 3), (5, 4), (5, 5))
"""The (layer, head) pairs that are taught to fetch the next token of a copy; MiniLM's first layers already find the
previous token (layer 0, head 2) and equal tokens (layer 2, head 9), the other parts of an induction circuit."""


ASSISTANT = ROLES[2]
TEXT_WEIGHT = 0.6
"""Loss weight of a token of plain text; a token of an answer weighs 1."""


@dataclass(frozen=True)
class Lesson:
    """One tokenised example: ids, loss weight of each token, and for each token the place to attend to (-1: free)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    guides: tuple[int, ...]


def lesson(example: Example, tokenizer: PreTrainedTokenizerBase, *, prompt_weight: float) -> Lesson:
    """Tokenise an example with the chat template; an answer weighs 1 a token, all else `prompt_weight`.

    The token before each copied token is guided to the place in the sources where the copied token stands.
    """
    turns = example.turns()
    messages = example.prompt()
    for number, turn in enumerate(turns):
        if number:
            messages.append({"role": "user", "content": f"Question: {turn.question}"})
        messages.append({"role": "assistant", "content": turn.answer})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    answers = _answer_starts(text, turns)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    weights = [prompt_weight] * len(spans)
    for turn, start in zip(turns, answers, strict=True):
        end = start + len(turn.answer) + len(END)
        for token, (first, last) in enumerate(spans):
            if first >= start and last <= end:
                weights[token] = 1.0
    return Lesson(tuple(encoded["input_ids"]), tuple(weights), tuple(_guides(turns, answers, text, spans)))


def _answer_starts(text: str, turns: Sequence[Turn]) -> list[int]:
    """Return where each turn's answer starts in the conversation's text."""
    starts: list[int] = []
    here = 0
    for _ in turns:
        here = text.index(ASSISTANT, here) + len(ASSISTANT)
        starts.append(here)
    return starts


def _guides(turns: Sequence[Turn], answers: Sequence[int], text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each token the token of the sources that holds what follows it in the answer; -1 elsewhere."""
    place: dict[int, int] = {}
    for turn, start in zip(turns, answers, strict=True):
        here = start
        for sentence in turn.copied:
            source = text.find(sentence, 0, answers[0])
            here = text.find(sentence, here)
            if source < 0 or here < 0:
                break
            place.update((here + offset, source + offset) for offset in range(len(sentence)))
            here += len(sentence)
    token_at = {
        character: token
        for token, (start, end) in enumerate(spans)
        if end <= answers[0]
        for character in range(start, end)
    }
    guides = [-1] * len(spans)
    for token, (start, end) in enumerate(spans):
        first = next((c for c in range(start, end) if c in place), None)
        if first is not None and token > 0:
            guides[token - 1] = token_at.get(place[first], -1)
    return guides


@dataclass(frozen=True)
class Course:
    """What a stage teaches from: files of examples with their shares, and the share of rows that are plain text.

    prompt_weight: loss weight of prompt tokens · kept: share of prompt and text tokens that carry loss at all (the
    output layer is a quarter of the work, and answers are what counts) · shifted: share of examples whose positions start at a
    random place, so that all 512 positions are trained by short examples as well.
    """

    shares: dict[str, float]
    text_share: float = 0.25
    prompt_weight: float = 0.3
    kept: float = 0.4
    shifted: float = 0.3


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
        positions: int = 512,
    ) -> None:
        missing = sorted(name for name in course.shares if not examples.get(name))
        if missing:
            raise FinetuneError(f"no examples for {missing}: make them before training")
        self._examples, self._text, self._tokenizer = examples, text, tokenizer
        self._course, self._config, self._positions = course, config, positions

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
        return lessons_batch(drawn, [row for row in plan if row], self._tokenizer.pad_token_id, offsets)

    def _draw(self, rng: random.Random) -> Lesson:
        """Draw an example by the course's shares; one too long for a row is drawn again."""
        names = list(self._course.shares)
        for _ in range(50):
            name = rng.choices(names, list(self._course.shares.values()))[0]
            each = lesson(rng.choice(self._examples[name]), self._tokenizer, prompt_weight=self._course.prompt_weight)
            if len(each.ids) <= min(self._config.row_length, self._positions):
                return each
        raise FinetuneError(f"the examples do not fit rows of {self._config.row_length} tokens; raise row_length")


def lessons_batch(
    lessons: Sequence[Lesson], rows: Sequence[Sequence[int]], pad_token: int, offsets: Sequence[int] | None = None
) -> TrainingBatch:
    """Lay lessons out in rows, with weights and guides at their tokens' places."""
    import torch

    packed = pack([(each.ids, each.ids) for each in lessons], rows, pad_token=pad_token, offsets=offsets)
    weights = torch.zeros(packed.input_ids.shape)
    guides = torch.full(packed.input_ids.shape, -1, dtype=torch.long)
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            each = lessons[index]
            place = slice(start, start + len(each.ids))
            weights[number, place] = torch.tensor(each.weights)
            guides[number, place] = torch.tensor([column + start if column >= 0 else -1 for column in each.guides])
            start += len(each.ids)
    return TrainingBatch(packed, weights, guides)


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
    none = torch.full(second.packed.input_ids.shape, -1, dtype=torch.long)
    guides = [wide(each.guides if each.guides is not None else none, -1) for each in (first, second)]
    return TrainingBatch(packed, torch.cat([wide(first.weights, 0), wide(second.weights, 0)]), torch.cat(guides))

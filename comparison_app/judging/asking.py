"""Asking a judge: through the cache, several requests in flight, never beyond the budget.

Before a request is sent, its highest possible price is set aside: the prompt's tokens, estimated generously and
corrected by what the server counts, and a reply of full length. What does not fit into the budget is not asked. What a
request costs a judge on this machine only the first reply tells: under a budget that one is asked by itself, and every
next wave is at most as large as what was asked before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from comparison_app.endpoints import MAX_RETRIES
from comparison_app.judging.cache import JudgeReply, ReplyCache, reply_key
from comparison_app.judging.prompts import Talk
from comparison_app.judging.settings import JudgeSettings

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage

_BYTES_PER_TOKEN, _TOKENS_PER_MESSAGE = 3, 8


class ChatModel(Protocol):
    """What a judge must be able to do; `rag.answering.Generator` has it, `as_chat_model` gives it to Haystack's."""

    def generate(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        """Return one reply per conversation, in order; meta may hold `usage` and `error`."""


@dataclass
class Spending:
    """What a judge has cost so far. `money` counts priced tokens, or seconds at the machine's price."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    money: float = 0.0


@dataclass(frozen=True)
class JudgeEstimate:
    """What a judge will cost: calls to make, calls known already, prompt tokens, and the most that it may come to.

    `money` is None where it cannot be known before: an endpoint without prices, or a model on this machine.
    """

    calls: int
    cached: int
    prompt_tokens: int
    money: float | None


@dataclass(frozen=True)
class Failure:
    """A request that got no reply; `unasked`: it was not sent, since the budget is spent."""

    problem: str
    unasked: bool = False


@dataclass
class Asker:
    """Asks one judge. `machine_price` is money per hour, for a judge that runs on this machine."""

    model: ChatModel
    settings: JudgeSettings
    cache: ReplyCache
    machine_price: float = 0.0
    identity: dict[str, Any] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)
    _ratio: float | None = None

    def ask(self, talks: Sequence[tuple[Talk, int]]) -> list[JudgeReply | Failure]:
        """Return a reply or a failure for each conversation and turn, in order; replies are kept at once."""
        keys = [self._key(talk, turn) for talk, turn in talks]
        found: dict[str, JudgeReply | Failure] = dict(self.cache.get(keys))
        self.spending.cached += sum(key in found for key in keys)
        fresh = [(key, talk) for key, (talk, _) in zip(keys, talks, strict=True) if key not in found]
        waiting = list(dict(fresh).items())
        while waiting and (count := self._affordable([talk for _, talk in waiting])):
            found |= self._ask_now(dict(waiting[:count]))
            waiting = waiting[count:]
        spent = Failure("the budget is spent", unasked=True)
        return [found.get(key, spent) for key in keys]

    def _ask_now(self, talks: Mapping[str, Talk]) -> dict[str, JudgeReply | Failure]:
        """Send `talks`, keep the replies, and count what they cost."""
        replies = dict(zip(talks, self._send(list(talks.values())), strict=True))
        whole = {key: reply for key, reply in replies.items() if isinstance(reply, JudgeReply)}
        self.cache.put(whole)
        for key, reply in whole.items():
            self._pay(talks[key], reply)
        return replies

    def estimate(self, talks: Sequence[tuple[Talk, int]]) -> JudgeEstimate:
        """Say what asking `talks` once each would cost at most, without what is known already."""
        known = self.cache.get([self._key(talk, turn) for talk, turn in talks])
        fresh = [talk for talk, turn in talks if self._key(talk, turn) not in known]
        tokens = sum(self._prompt_tokens(talk) for talk in fresh)
        money = sum(self._dearest(talk) for talk in fresh) if self._priced else None
        return JudgeEstimate(len(fresh), len(talks) - len(fresh), tokens, money)

    @property
    def _priced(self) -> bool:
        return self.settings.input_price is not None or self.settings.output_price is not None

    def _key(self, talk: Talk, turn: int) -> str:
        chosen = {key: asdict(self.settings)[key] for key in ("model", "endpoint", "quantization", "max_new_tokens")}
        return reply_key({**chosen, **self.identity}, talk, turn)

    def _affordable(self, talks: Sequence[Talk]) -> int:
        """Return how many of `talks`, from the first, fit into what is left of the budget."""
        if self.settings.budget is None:
            return len(talks)
        left = self.settings.budget - self.spending.money
        if not self._priced and self.machine_price > 0:
            talks = talks[: max(1, self.spending.calls)] if left > 0 else ()
        for place, talk in enumerate(talks):
            left -= self._dearest(talk)
            if left < 0:
                return place
        return len(talks)

    def _dearest(self, talk: Talk) -> float:
        """Return the most that one request can cost; for a model on this machine, what requests took so far."""
        if self._priced:
            return self._price(self._prompt_tokens(talk), self.settings.max_new_tokens)
        made = self.spending.calls
        return self.spending.money / made if made else 0.0

    def _price(self, prompt: float, completion: float) -> float:
        return (prompt * (self.settings.input_price or 0) + completion * (self.settings.output_price or 0)) / 1_000_000

    def _prompt_tokens(self, talk: Talk) -> int:
        return math.ceil((self._ratio or 1.0) * _guessed_tokens(talk))

    def _send(self, talks: Sequence[Talk]) -> list[JudgeReply | Failure]:
        """Ask all of `talks`: one by one and concurrently at an endpoint, else as one batch."""
        if not talks:
            return []
        if not self.settings.endpoint:
            return self._generate(talks)
        replies: list[JudgeReply | Failure] = []
        with ThreadPoolExecutor(max_workers=min(self.settings.in_flight, len(talks))) as pool:
            for start in range(0, len(talks), self.settings.in_flight):
                some = talks[start : start + self.settings.in_flight]
                replies += [found[0] for found in pool.map(lambda talk: self._generate([talk]), some)]
                if all(isinstance(reply, Failure) for reply in replies):
                    return replies + [replies[-1]] * (len(talks) - len(replies))  # a dead endpoint is not asked on
        return replies

    def _generate(self, talks: Sequence[Talk]) -> list[JudgeReply | Failure]:
        started = time.perf_counter()
        try:
            messages = self.model.generate([_messages(talk) for talk in talks])
        except Exception as error:  # a judge is others' code: whatever it raises is its failure, not the run's
            return [Failure(str(error) or type(error).__name__)] * len(talks)
        seconds = (time.perf_counter() - started) / len(talks)
        return [_reply(message, seconds) for message in messages]

    def _pay(self, talk: Talk, reply: JudgeReply) -> None:
        """Count what a reply cost, and learn how many tokens the server makes of a prompt."""
        guess = _guessed_tokens(talk)
        prompt = guess if reply.prompt_tokens is None else reply.prompt_tokens
        completion = self.settings.max_new_tokens if reply.completion_tokens is None else reply.completion_tokens
        self._ratio = max(self._ratio or 0.0, prompt / guess)
        spent = self.spending
        spent.calls += 1
        spent.prompt_tokens += prompt
        spent.completion_tokens += completion
        spent.seconds += reply.seconds
        local = 0.0 if self.settings.endpoint else self.machine_price * reply.seconds / 3600
        spent.money += self._price(prompt, completion) if self._priced else local


class _Wrapped:
    """A Haystack chat generator, asked one conversation at a time."""

    def __init__(self, component: Any) -> None:
        self.component = component

    def generate(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        """Return one reply per conversation."""
        return [self.component.run(messages=conversation)["replies"][0] for conversation in conversations]


def as_chat_model(generator: Any) -> ChatModel:
    """Return `generator` as a judge's model: as it is if it generates in batches, wrapped if it is Haystack's."""
    model: ChatModel = generator if hasattr(generator, "generate") else _Wrapped(generator)
    return model


def open_judge(settings: JudgeSettings) -> tuple[ChatModel, dict[str, Any]]:
    """Return the judge's model, and what names its weights where they are on this machine; loads nothing yet."""
    if settings.endpoint:
        return as_chat_model(_remote(settings)), {}
    from finetune.answering import LocalModel

    local = LocalModel(
        settings.model, quantization=settings.quantization, max_new_tokens=settings.max_new_tokens, batch_size=8
    )
    return local.generator(None), {"weights": local.fingerprint}


def _remote(settings: JudgeSettings) -> Any:
    """Return a client of the judge's endpoint; it has no memory of its own, so that a repeat is really asked again."""
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.utils import Secret

    name = settings.api_key_env
    return OpenAIChatGenerator(
        api_key=Secret.from_env_var(name) if name else Secret.from_token("none"),
        model=settings.model,
        api_base_url=settings.endpoint,
        timeout=120.0,
        max_retries=MAX_RETRIES,
        generation_kwargs={"temperature": 0, "max_tokens": settings.max_new_tokens},
    )


def _guessed_tokens(talk: Talk) -> int:
    """Estimate a conversation's tokens, rather too many: a token for three bytes of text, and some per message."""
    sizes = [len(text.encode("utf-8", "replace")) for _, text in talk]
    return sum(math.ceil(size / _BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE for size in sizes)


def _messages(talk: Talk) -> list[ChatMessage]:
    from haystack.dataclasses import ChatMessage

    makers = {"system": ChatMessage.from_system, "user": ChatMessage.from_user, "assistant": ChatMessage.from_assistant}
    return [makers[role](text) for role, text in talk]


def _reply(message: ChatMessage, seconds: float) -> JudgeReply | Failure:
    if message.meta.get("error"):
        return Failure(str(message.meta["error"]))
    usage = message.meta.get("usage") or {}
    return JudgeReply(message.text or "", usage.get("prompt_tokens"), usage.get("completion_tokens"), seconds)

"""Chat messages to token ids, by the model's own chat template: the same for training and for answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.errors import ModelError

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage
    from transformers import PreTrainedTokenizerBase


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise ModelError if the tokenizer of model `name` has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"model {name} has no chat template: choose its instruct version, "
            "or put a chat_template.jinja into the model's folder"
        )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[ChatMessage]) -> list[int]:
    """Return the ids of a conversation that waits for the assistant's reply."""
    return _ids(tokenizer, _render(tokenizer, _plain(prompt), waits=True))


def encode_exchange(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[ChatMessage], reply: str
) -> tuple[list[int], int]:
    """Return the ids of a conversation with its reply, and how many of them are the prompt.

    The reply's part holds the end token of the template, so that training on it teaches where to stop.
    """
    messages = _plain(prompt)
    start = _ids(tokenizer, _render(tokenizer, messages, waits=True))
    whole = _ids(tokenizer, _render(tokenizer, [*messages, {"role": "assistant", "content": reply}], waits=False))
    shared = next(
        (i for i, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), min(len(start), len(whole))
    )
    if shared < len(start) // 2 or shared >= len(whole):
        raise ModelError(
            "the model's chat template writes a prompt differently once it has a reply; training on it would not teach "
            "what it is asked: give the model a template whose prompt is the beginning of the whole conversation"
        )
    return whole, shared


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: Any) -> set[int]:
    """Return the ids that end a reply: the tokenizer's and all of the model's generation configuration."""
    ends = {tokenizer.eos_token_id}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends.update(configured if isinstance(configured, list) else [configured])
    ends.discard(None)
    if not ends:
        raise ModelError("the model's tokenizer names no end token (eos_token), so its replies would never stop")
    return {int(token) for token in ends}


def _plain(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Return messages as the dictionaries that chat templates take."""
    return [{"role": message.role.value, "content": message.text or ""} for message in messages]


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, waits: bool) -> str:
    """Apply the chat template; a template that refuses a system message gets it in front of the user's."""
    from jinja2 import TemplateError

    try:
        return _apply(tokenizer, messages, waits)
    except TemplateError:
        if len(messages) < 2 or messages[0]["role"] != "system":
            raise
        content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
        return _apply(tokenizer, [{"role": "user", "content": content}, *messages[2:]], waits)


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], waits: bool) -> str:
    """Render without thinking blocks, for models that have them."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=waits, enable_thinking=False)
    return str(text)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokenise rendered text; the template has written the special tokens itself."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids

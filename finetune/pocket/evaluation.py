"""How well pocket answers from context: token F1, exact copies and refusals on held-out examples."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_prep.conversations import is_refusal
from finetune.pocket.instruct import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def token_f1(answer: str, gold: str) -> float:
    """Return SQuAD's token F1 (Rajpurkar et al. 2016): case, punctuation and articles do not count."""
    ours, theirs = _tokens(answer), _tokens(gold)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def _tokens(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ARTICLES.sub(" ", plain).split()


def replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[dict[str, str]]],
    *,
    new_tokens: int = 64,
    batch_size: int = 16,
) -> list[str]:
    """Answer chat prompts greedily, in batches padded on the left; prompts too long for the model keep their end."""
    import torch

    answers: list[str] = []
    room = model.config.max_position_embeddings - new_tokens
    texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
    for start in range(0, len(texts), batch_size):
        ids = [i[-room:] for i in tokenizer(texts[start : start + batch_size], add_special_tokens=False)["input_ids"]]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="left").to(model.device)
        with torch.no_grad():
            made = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=new_tokens,
                do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        answers += tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def context_figures(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> dict[str, float]:
    """Return context_f1, exact, refused_wrongly (over answerable examples) and refused_rightly (over the others)."""
    asked = [example for example in examples if example.passages]
    answers = replies(model, tokenizer, [example.prompt() for example in asked])
    answerable = [(a, e.answer) for a, e in zip(answers, asked, strict=True) if e.copied]
    others = [a for a, e in zip(answers, asked, strict=True) if not e.copied]
    return {
        "context_f1": _mean([token_f1(answer, gold) for answer, gold in answerable]),
        "exact": _mean([float(_tokens(answer) == _tokens(gold)) for answer, gold in answerable]),
        "refused_wrongly": _mean([float(is_refusal(answer)) for answer, _ in answerable]),
        "refused_rightly": _mean([float(is_refusal(answer)) for answer in others]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

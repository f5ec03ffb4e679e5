"""Give a model another vocabulary: each new token starts as the mean of what the old tokenizer cuts its text into.

`v_new(t) = mean(v_old(pieces of t))`, for input and output embeddings, so that the model starts from what it knew.
Special tokens keep their rows: by their text, else by their role (padding, end, …).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INITIALISATIONS = ("mean", "random")
_ROLES = ("eos_token", "bos_token", "unk_token", "cls_token", "sep_token", "mask_token", "pad_token")
"""A token with two roles keeps the row of the one named first."""
_METASPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def swap_tokenizer(
    model: PreTrainedModel,
    old_tokenizer: PreTrainedTokenizerBase,
    new_tokenizer: PreTrainedTokenizerBase,
    *,
    initialisation: str = "mean",
    seed: int = 0,
) -> PreTrainedModel:
    """Give `model`, in place, the vocabulary of `new_tokenizer`, and return it.

    Input embeddings of shape (old, hidden) become (new, hidden): each row is the mean of the old rows of the token's
    pieces; a token that has none (a new special token, say) gets the mean of all old rows. Output embeddings
    that are not tied to them are treated alike, and so is the output bias. With `initialisation="random"`, for
    comparison, all rows but the kept special tokens' are normal numbers of the old rows' standard deviation. Special
    tokens' ids are set in the configuration. Raises ModelError if the new tokenizer has no pad token.
    """
    import torch

    if initialisation not in INITIALISATIONS:
        raise FinetuneError(f"initialisation is {initialisation!r}; allowed: {', '.join(INITIALISATIONS)}")
    if new_tokenizer.pad_token_id is None:
        raise ModelError("the new tokenizer has no pad token: set its pad_token (the end token will do)")
    kept = kept_specials(old_tokenizer, new_tokenizer)
    pieces = token_pieces(old_tokenizer, new_tokenizer, kept)
    inputs = model.get_input_embeddings().weight.data
    if max((max(ids) for ids in pieces if ids), default=0) >= len(inputs):
        raise ModelError(f"the old tokenizer has ids beyond the model's {len(inputs)} rows: it is not this model's own")
    outputs_layer = model.get_output_embeddings()
    untied = outputs_layer is not None and outputs_layer.weight.data_ptr() != inputs.data_ptr()
    new_inputs = mean_rows(inputs, pieces)
    new_outputs = mean_rows(outputs_layer.weight.data, pieces) if outputs_layer is not None and untied else None
    bias = getattr(outputs_layer, "bias", None)
    new_bias = None if bias is None else mean_rows(bias.data[:, None], pieces)[:, 0]
    if initialisation == "random":
        for number, (new, old) in enumerate(
            ((new_inputs, inputs), (new_outputs, getattr(outputs_layer, "weight", None)))
        ):
            if new is not None:
                _randomise(new, old.data, kept, seed + number)

    model.resize_token_embeddings(len(pieces), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(new_inputs)
        outputs_layer = model.get_output_embeddings()
        if outputs_layer is not None and new_outputs is not None:
            outputs_layer.weight.copy_(new_outputs)
        if outputs_layer is not None and new_bias is not None and outputs_layer.bias is not None:
            outputs_layer.bias.copy_(new_bias)
    _set_special_ids(model, new_tokenizer)
    return model


def mean_rows(rows: torch.Tensor, pieces: list[list[int]]) -> torch.Tensor:
    """Return, of shape (len(pieces), width), the mean of `rows` (old, width) picked by each list of ids.

    An empty list gives the mean of all rows.
    """
    import torch

    average = rows.float().mean(dim=0)
    means = [rows[torch.tensor(ids)].float().mean(dim=0) if ids else average for ids in pieces]
    return torch.stack(means).to(rows.dtype)


def _randomise(new: torch.Tensor, old: torch.Tensor, kept: dict[int, int], seed: int) -> None:
    """Overwrite all rows of `new` but the kept ones with normal numbers as wide as those of `old`."""
    import torch

    drawn = torch.empty(new.shape).normal_(0.0, float(old.float().std()), generator=torch.Generator().manual_seed(seed))
    drawn = drawn.to(new.dtype)
    for token in kept:
        drawn[token] = new[token]
    new.copy_(drawn)


def kept_specials(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> dict[int, int]:
    """Return new id → old id of the special tokens that both know: by text, else by role."""
    kept = {}
    vocabulary = old.get_vocab()
    roles = {getattr(new, role, None): getattr(old, role, None) for role in reversed(_ROLES)}
    if old.eos_token is None:
        roles[new.eos_token] = old.sep_token
    for text in new.all_special_tokens:
        same = text if text in vocabulary else roles.get(text)
        if same is not None:
            kept[int(new.convert_tokens_to_ids(text))] = int(vocabulary[same])
    return kept


def token_pieces(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, kept: dict[int, int]) -> list[list[int]]:
    """Return for every new token the old ids of its text; none for new special tokens.

    A token that is no whole character has the ids of its bytes, where both vocabularies are of bytes.
    """
    prefixed, bytewise = _adds_a_space(old), _is_bytewise(old) and _is_bytewise(new)
    specials, vocabulary = set(new.all_special_ids), old.get_vocab()
    found = []
    for token in range(len(new)):
        text = _text_of(token, new)
        if token in specials:
            found.append([kept[token]] if token in kept else [])
        elif "\N{REPLACEMENT CHARACTER}" not in text:
            found.append(_old_ids(text, old, prefixed))
        else:
            letters = str(new.convert_ids_to_tokens(token)) if bytewise else ""
            found.append([vocabulary[letter] for letter in letters if letter in vocabulary])
    return found


def _is_bytewise(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a vocabulary is of bytes, written as GPT-2 writes them: then a token's letters are its bytes."""
    return {"\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}", "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}"} <= set(
        tokenizer.get_vocab()
    )


def _text_of(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of one token, with the space before it that decoding alone would drop."""
    name = tokenizer.convert_ids_to_tokens(token)
    if isinstance(name, str) and name.startswith(_METASPACE):
        return name.replace(_METASPACE, " ")
    return str(tokenizer.decode([token]))


def _adds_a_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer puts a space before a text, as SentencePiece's do."""
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(ids) and str(tokenizer.convert_ids_to_tokens(ids[0])).startswith(_METASPACE)


def _old_ids(text: str, old: PreTrainedTokenizerBase, prefixed: bool) -> list[int]:
    """Return the ids of `text`; of one that starts no word without the space that the tokenizer would add."""

    def ids(some: str) -> list[int]:
        return list(old(some, add_special_tokens=False)["input_ids"])

    if not prefixed:
        return ids(text)
    if text.startswith(" ") and text.strip():
        return ids(text[1:])
    opening, whole = ids("\n"), ids("\n" + text)
    return whole[len(opening) :] if opening and whole[: len(opening)] == opening else ids(text)


def _set_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the new tokenizer's pad, begin and end ids into the model's configurations."""
    configs: list[Any] = [model.config, getattr(model, "generation_config", None)]
    for config in configs:
        if config is not None:
            config.pad_token_id = tokenizer.pad_token_id
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id

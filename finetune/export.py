"""Adapters as models that stand alone: merged weights, proved equal before they take their name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.adapters import check_whole, load_for_merging, merge
from finetune.errors import AdapterError, FinetuneError
from finetune.models import (
    base_fingerprint,
    choose_dtype,
    load_base,
    load_tokenizer,
    model_context,
    model_folder,
)
from finetune.new_folders import check_replaceable, new_folder
from finetune.run_record import FILE_NAME, read_run_record

if TYPE_CHECKING:
    import torch

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 1e-2}
"""Largest difference of logits, as a share of the largest logit, that a merge may make."""
PROBE_TOKENS = 64
EXACT_BELOW = 4_000_000_000
"""Bytes of weights up to which adapter and base are added in float32, whatever dtype is written."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge did: where it is and how far its logits are from those of base and adapter."""

    folder: Path
    dtype: str
    largest_difference: float
    """Largest absolute difference of logits, over the largest absolute logit."""
    size_bytes: int


def merge_adapter(adapter: Path, output: Path, *, base: str | None = None, dtype: str = "float32") -> MergeReport:
    """Fold the adapter in folder `adapter` into its base model and write a model folder that stands alone.

    The merged model is loaded again from its files, and its logits must equal those of base and adapter; only then does
    `output` take its content. `dtype` is that of the weights written. Raises FinetuneError if the adapter was made for
    another base, if the merge is not exact, or if `output` holds what was not made here.
    """
    check_replaceable(output)
    check_whole(adapter)
    record = read_run_record(adapter)
    name = base or record.base_model
    if base_fingerprint(name) != record.base_fingerprint:
        raise AdapterError(f"{adapter}: the adapter was made for another base model than {name}")
    tokenizer = load_tokenizer(name)
    arithmetic = "float32" if weight_bytes(model_folder(name)) < EXACT_BELOW else dtype
    model = load_for_merging(load_base(name, dtype=arithmetic, device="cpu"), adapter)
    expected = probe(model, len(tokenizer), model_context(name))
    merged = merge(model)
    with new_folder(output) as folder:
        merged.to(choose_dtype(dtype, "cpu")).save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        shutil.copyfile(adapter / FILE_NAME, folder / FILE_NAME)
        again = load_base(str(folder), dtype=arithmetic, device="cpu")
        difference = _difference(expected, probe(again, len(tokenizer), model_context(name)))
        if not difference <= TOLERANCE[dtype]:
            raise FinetuneError(
                f"{adapter}: the merged model differs by {difference:.2g} of the largest logit, more than "
                f"{TOLERANCE[dtype]:g}; merge it with dtype float32"
            )
    return MergeReport(output, dtype, difference, weight_bytes(output))


def stored_dtype(folder: Path) -> str:
    """Return the dtype in which most of the weights of a model folder are written, by torch's name."""
    from safetensors import safe_open

    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    counts = dict.fromkeys(names, 0)
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="numpy") as weights:
            for key in weights.keys():  # noqa: SIM118
                kind = weights.get_slice(key).get_dtype()
                counts[kind] = counts.get(kind, 0) + 1
    return names.get(max(counts, key=lambda kind: counts[kind]), "float32")


def exact_dtype(base: str) -> str:
    """Return the dtype to merge in on the way to another format: float32, or the base's own where that is too large."""
    folder = model_folder(base)
    return "float32" if weight_bytes(folder) < EXACT_BELOW else stored_dtype(folder)


def weight_bytes(folder: Path) -> int:
    """Return the size of a model's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def probe(model: Any, vocabulary: int, context: int) -> torch.Tensor:
    """Return the logits of fixed random tokens, in float32."""
    import torch

    chance = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (2, min(PROBE_TOKENS, context)), generator=chance)
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits.float()
    return logits


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the largest absolute difference over the largest absolute value expected."""
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-9))

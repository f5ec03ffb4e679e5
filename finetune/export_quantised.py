"""Adapters as quantised models that stand alone, for processors: 8 or 4 bits, written as safetensors.

The weights of the linear layers are held in 8 bits (LLM.int8, Dettmers et al. 2022, arXiv 2208.07339) or in 4 (nf4,
Dettmers et al. 2023, arXiv 2305.14314) by bitsandbytes, which computes with them on processors and on CUDA; embeddings,
norms and the output head stay as they were. The folder says so in its config.json, so transformers, and every arm of
Versus, load it like any model.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, ModelError
from finetune.export import exact_dtype, merge_adapter, probe, stored_dtype, weight_bytes
from finetune.models import choose_dtype, load_base, load_tokenizer, model_context, model_folder
from finetune.new_folders import check_replaceable, new_folder
from finetune.run_record import FILE_NAME, read_run_record

if TYPE_CHECKING:
    import torch

KINDS = ("int8", "int4")
REMAINDER = "bfloat16"
"""The dtype of what is not quantised."""
SAME = 1e-3
"""Largest difference of logits, as a share of the largest, between the model quantised here and its files."""


@dataclass(frozen=True)
class QuantisedReport:
    """What a quantisation did. Sizes are in bytes, of the files and of the weights in memory; before: of the base."""

    folder: Path
    kind: str
    size_bytes: int
    size_before: int
    memory_bytes: int
    memory_before: int
    largest_difference: float
    """Of the logits from those of the merged model, over the largest of them."""
    same_next_token: float
    """Share of fixed random positions at which both find the same token the most probable."""


def quantise_adapter(adapter: Path, output: Path, kind: str, *, base: str | None = None) -> QuantisedReport:
    """Merge the adapter in folder `adapter` into its base, quantise it (`int8` or `int4`) and write it to `output`.

    The files are loaded again and must answer as what was quantised; only then does `output` take its content. Raises
    FinetuneError.
    """
    if kind not in KINDS:
        raise FinetuneError(f"no quantisation called {kind!r}; there are: {', '.join(KINDS)}")
    check_replaceable(output)
    with tempfile.TemporaryDirectory(prefix="versus-merged-") as temporary:
        merged = Path(temporary) / "merged"
        name = base or read_run_record(adapter).base_model
        merge_adapter(adapter, merged, base=base, dtype=exact_dtype(name))
        tokenizer = load_tokenizer(str(merged))
        context = model_context(str(merged))
        full = load_base(str(merged), dtype=stored_dtype(model_folder(name)), device="cpu")
        expected, memory_before = probe(full, len(tokenizer), context), full.get_memory_footprint()
        del full
        model = _load_quantised(merged, kind)
        memory = model.get_memory_footprint()
        with new_folder(output) as folder:
            # saved before it computes anything: bitsandbytes lays 4-bit weights out anew for the processor then
            model.save_pretrained(str(folder), safe_serialization=True)
            found = probe(model, len(tokenizer), context)
            tokenizer.save_pretrained(str(folder))
            shutil.copyfile(merged / FILE_NAME, folder / FILE_NAME)
            again = load_base(str(folder), dtype=REMAINDER, device="cpu")
            _check_same(found, probe(again, len(tokenizer), context), output)
        return QuantisedReport(
            folder=output,
            kind=kind,
            size_bytes=weight_bytes(output),
            size_before=weight_bytes(model_folder(name)),
            memory_bytes=int(memory),
            memory_before=int(memory_before),
            largest_difference=float((found - expected).abs().max() / expected.abs().max()),
            same_next_token=float((found.argmax(-1) == expected.argmax(-1)).float().mean()),
        )


def _load_quantised(folder: Path, kind: str) -> Any:
    """Load a model folder with its linear layers quantised."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    arithmetic = choose_dtype(REMAINDER, "cpu")
    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if kind == "int8"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=arithmetic)
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), quantization_config=settings, dtype=arithmetic, device_map={"": "cpu"}, local_files_only=True
        )
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the model cannot be quantised to {kind} here: {str(error).splitlines()[0]}") from error
    return model.eval()


def _check_same(expected: torch.Tensor, found: torch.Tensor, output: Path) -> None:
    """Raise FinetuneError if the files do not give the logits of the model that was written."""
    difference = float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-9))
    if not difference <= SAME:
        raise FinetuneError(
            f"{output}: the quantised model differs from its own files by {difference:.2g} of the largest logit; "
            "nothing was written: update bitsandbytes"
        )

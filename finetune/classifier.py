"""A classifier of texts: a linear head on a frozen, handed-in embedder, or an encoder trained whole.

The head is a softmax regression on the embeddings (n, d): probabilities = softmax(x Wᵀ + b), W of shape (c, d), trained
by AdamW on the cross entropy and stopped when the loss on texts held out no longer falls; the best head is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data_prep.atomic import write_text
from finetune.checkpoints import scratch_of
from finetune.classifier_data import ClassifierRecipe, LabelledText, Trained, split_dev
from finetune.encoder_watching import OnStep
from finetune.errors import AdapterError, TrainingDataError, TrainingError
from finetune.new_folders import check_replaceable, new_folder
from finetune.run_record import FILE_NAME, library_versions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.floating[Any]]

LABELS = "labels.json"
HEAD = "head.safetensors"
FORMAT = 1


class Embedder(Protocol):
    """What the head reads: texts to vectors."""

    def embed_documents(self, texts: list[str]) -> Vectors:
        """Return one vector per text, shape (n, d)."""
        ...


class Classifier(Protocol):
    """A trained classifier, of either mode."""

    labels: tuple[str, ...]

    def probabilities(self, texts: Sequence[str]) -> Vectors:
        """Return the probability of each label for each text, shape (n, c); rows sum to 1."""
        ...


@dataclass(frozen=True)
class ClassifierRecord:
    """How a classifier was made; lies beside its weights as JSON."""

    recipe: dict[str, Any]
    data_sha256: str
    examples: int
    dev_examples: int
    labels: tuple[str, ...]
    dev_accuracy: float | None
    """Share of held-out texts classified rightly; None if none were held out."""
    losses: tuple[tuple[int, float, float], ...]
    """(epoch, training loss, loss on the held-out texts; the training loss again where none were held out)."""
    epochs: int
    stopped: str
    """`finished` or `no improvement`."""
    started: str
    seconds: float
    versions: dict[str, str]
    steps: int
    cut: int
    """Texts to train on that were longer than `max_length` (full), and were cut."""


class HeadClassifier:
    """A linear head and the embedder that it was trained on."""

    def __init__(self, labels: Sequence[str], weight: Vectors, bias: Vectors, embedder: Embedder) -> None:
        self.labels = tuple(labels)
        self.weight = weight
        self.bias = bias
        self.embedder = embedder

    def probabilities(self, texts: Sequence[str]) -> Vectors:
        """Return the probability of each label for each text, shape (n, c); rows sum to 1."""
        import numpy as np

        if not texts:
            return np.zeros((0, len(self.labels)))
        vectors = np.asarray(self.embedder.embed_documents(list(texts)), dtype=np.float64)
        if vectors.shape[1:] != self.weight.shape[1:]:
            raise AdapterError(
                f"the embedder gives vectors of {vectors.shape[1]} numbers, but the classifier was trained on "
                f"{self.weight.shape[1]}: use the embedder it was trained with"
            )
        scores = vectors @ self.weight.T.astype(np.float64) + self.bias
        grown = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances: Vectors = grown / grown.sum(axis=1, keepdims=True)
        return chances


def predict(classifier: Classifier, texts: Sequence[str]) -> list[str]:
    """Return the most probable label of each text."""
    return [classifier.labels[int(best)] for best in classifier.probabilities(texts).argmax(axis=1)] if texts else []


def train_classifier(
    recipe: ClassifierRecipe,
    examples: Sequence[LabelledText],
    output: Path,
    embedder: Embedder | None = None,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> ClassifierRecord:
    """Train a classifier as the recipe says and write it to folder `output`, in one step.

    `embedder` is needed in mode `head` and stays as it is. In mode `full`, `resume` goes on from the last whole
    checkpoint of an interrupted training, or starts if there is none; a head trains in seconds and always starts.
    `on_step` is called after every step (full). Raises TrainingDataError for data that teach nothing, and TrainingError
    if a number breaks, memory runs out, the checkpoints are of another training, or one of this training would be lost
    by starting without `resume`.
    """
    check_replaceable(output)
    started = datetime.now(UTC)
    labels = tuple(sorted({example.label for example in examples}))
    if len(labels) < 2:
        raise TrainingDataError(f"a classifier needs texts of at least 2 labels; the data have {len(labels)}")
    train, dev = split_dev(examples, recipe.dev_share, recipe.seed)
    data = hashlib.sha256(repr([dataclasses.astuple(each) for each in examples]).encode()).hexdigest()
    scratch = scratch_of(output)
    if recipe.mode == "full":
        from finetune.encoder_training import train_encoder

        trained = train_encoder(recipe, train, dev, labels, scratch, data_sha256=data, resume=resume, on_step=on_step)
    elif embedder is None:
        raise TrainingDataError(f"recipe {recipe.name} trains a head on an embedder: one is needed")
    else:
        trained = _train_head(recipe, train, dev, labels, embedder)
    record = ClassifierRecord(
        recipe=dataclasses.asdict(recipe),
        data_sha256=data,
        examples=len(train),
        dev_examples=len(dev),
        labels=labels,
        dev_accuracy=trained.accuracy,
        losses=tuple(trained.losses),
        epochs=len(trained.losses),
        stopped="finished" if len(trained.losses) >= recipe.epochs else "no improvement",
        started=started.isoformat(timespec="seconds"),
        seconds=round(trained.seconds, 2),
        versions=library_versions(),
        steps=trained.steps,
        cut=trained.cut,
    )
    with new_folder(output) as folder:
        trained.write(folder)
        told = {"format": FORMAT, "mode": recipe.mode, "labels": labels, "dimension": trained.dimension}
        told["embedder"] = recipe.model
        write_text(folder / LABELS, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        write_text(folder / FILE_NAME, json.dumps(dataclasses.asdict(record), ensure_ascii=False, indent=1) + "\n")
    shutil.rmtree(scratch, ignore_errors=True)
    return record


def load_classifier(folder: Path, embedder: Embedder | None = None) -> Classifier:
    """Load the classifier in `folder`; one of mode `head` needs the embedder it was trained on. Raises AdapterError."""
    told = read_labels(folder)
    if told["mode"] == "full":
        from finetune.encoder_classifier import EncoderClassifier

        return EncoderClassifier(told["labels"], folder)
    if embedder is None:
        raise AdapterError(
            f"{folder}: the classifier is a head on embedder {told['embedder']}, which is needed as well"
        )
    weight, bias = read_head(folder)
    return HeadClassifier(told["labels"], weight, bias, embedder)


def read_labels(folder: Path) -> dict[str, Any]:
    """Return what `labels.json` of a classifier says. Raises AdapterError if it is missing or damaged."""
    path = folder / LABELS
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT or told["mode"] not in ("head", "full") or len(told["labels"]) < 2:
            raise ValueError("not the format of this version")
    except FileNotFoundError as error:
        raise AdapterError(
            f"{folder}: there is no classifier; `versus train classifier --data FILE` makes one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path}: damaged ({error}); train the classifier again") from error
    return dict(told)


def read_head(folder: Path) -> tuple[Vectors, Vectors]:
    """Return the head's weight (c, d) and bias (c,). Raises AdapterError if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = load_file(str(folder / HEAD))
        return weights["weight"], weights["bias"]
    except (OSError, SafetensorError, KeyError) as error:
        raise AdapterError(f"{folder / HEAD}: damaged or missing ({error}); train the classifier again") from error


def _train_head(
    recipe: ClassifierRecipe,
    train: Sequence[LabelledText],
    dev: Sequence[LabelledText],
    labels: Sequence[str],
    embedder: Embedder,
) -> Trained:
    """Train a head on the embedder's vectors."""
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    def tensors(examples: Sequence[LabelledText]) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = np.asarray(embedder.embed_documents([example.text for example in examples]), dtype=np.float32)
        return torch.from_numpy(vectors.copy()), torch.tensor([labels.index(example.label) for example in examples])

    clock = time.perf_counter()
    torch.manual_seed(recipe.seed)
    x, y = tensors(train)
    held = tensors(dev) if dev else (x, y)
    if not all(bool(vectors.isfinite().all()) for vectors in (x, held[0])):
        raise TrainingDataError("the embedder gives vectors with numbers that are not finite: choose another")
    head = torch.nn.Linear(x.shape[1], len(labels))
    losses, best = _epochs(recipe, head, (x, y), held, bool(dev))
    head.load_state_dict(best)
    with torch.inference_mode():
        right = float((head(held[0]).argmax(dim=1) == held[1]).float().mean())
    return Trained(
        losses=losses,
        accuracy=right if dev else None,
        dimension=int(x.shape[1]),
        steps=len(losses) * -(-len(x) // recipe.batch_size),
        seconds=time.perf_counter() - clock,
        write=lambda folder: save_file({name: part.numpy() for name, part in best.items()}, str(folder / HEAD)),
    )


def _epochs(
    recipe: ClassifierRecipe, head: Any, train: tuple[Any, Any], held: tuple[Any, Any], stops: bool
) -> tuple[list[tuple[int, float, float]], dict[str, Any]]:
    """Train epoch by epoch; return the losses and the best head's weights."""
    import torch
    from torch.nn.functional import cross_entropy

    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    best, lowest, since = {name: tensor.clone() for name, tensor in head.state_dict().items()}, float("inf"), 0
    losses: list[tuple[int, float, float]] = []
    x, y = train
    for epoch in range(1, recipe.epochs + 1):
        total = 0.0
        for chosen in torch.split(torch.randperm(len(x)), recipe.batch_size):
            optimizer.zero_grad()
            loss = cross_entropy(head(x[chosen]), y[chosen])
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
        with torch.inference_mode():
            dev_loss = float(cross_entropy(head(held[0]), held[1])) if stops else total / len(x)
        if not (math.isfinite(total) and math.isfinite(dev_loss)):
            raise TrainingError(f"the loss of epoch {epoch} is no number: nothing was overwritten; lower learning_rate")
        losses.append((epoch, total / len(x), dev_loss))
        if dev_loss < lowest - 1e-5:
            best = {name: tensor.clone() for name, tensor in head.state_dict().items()}
            lowest, since = dev_loss, 0
        else:
            since += 1
            if stops and since >= recipe.patience:
                break
    return losses, best

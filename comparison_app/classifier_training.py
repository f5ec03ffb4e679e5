"""Train a classifier of texts with this machine's embedder, into the workspace's `models/`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.device_lock import only_training
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from finetune.classifier import Classifier
    from finetune.encoder_watching import OnStep

ONNX = "classifier.onnx"


def train_classifier_on_file(
    recipe_name: str,
    data: Path,
    workspace: Workspace,
    name: str,
    *,
    model: str | None = None,
    onnx: bool = False,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Train on the labelled texts of a file and return what came out; `onnx` writes `classifier.onnx` as well.

    The classifier is called `name` and lies in `models/NAME`. `resume` and `on_step` are those of
    `finetune.classifier.train_classifier`. Raises `ComparisonError` while another training of the workspace runs on the
    device.
    """
    from finetune.classifier import train_classifier
    from finetune.classifier_data import load_classifier_recipe, read_labelled
    from finetune.classifier_onnx import export_onnx
    from finetune.models import default_device
    from rag.embedding import Embedder

    recipe = load_classifier_recipe(recipe_name)
    if model:
        recipe = replace(recipe, model=model)
    examples = read_labelled(data)
    folder = workspace.models / name
    with only_training(workspace, default_device(), name):
        embedder = Embedder(recipe.model) if recipe.mode == "head" else None
        record = train_classifier(recipe, examples, folder, embedder, resume=resume, on_step=on_step)
    told = {
        "classifier": name,
        "path": str(folder),
        "labels": list(record.labels),
        "examples": record.examples,
        "dev_examples": record.dev_examples,
        "dev_accuracy": record.dev_accuracy,
        "epochs": record.epochs,
        "steps": record.steps,
        "cut": record.cut,
        "stopped": record.stopped,
        "seconds": record.seconds,
    }
    if onnx:
        told["onnx"] = str(folder / ONNX)
        told["onnx_difference"] = export_onnx(folder, folder / ONNX)
    return told


def open_classifier(folder: Path) -> Classifier:
    """Load a classifier made here, with the embedder that it names."""
    from finetune.classifier import load_classifier, read_labels
    from rag.embedding import Embedder

    told = read_labels(folder)
    return load_classifier(folder, Embedder(str(told["embedder"])) if told["mode"] == "head" else None)

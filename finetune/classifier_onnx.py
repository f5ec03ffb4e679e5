"""Classifiers as ONNX: a head by its own few nodes, an encoder through torch's exporter; checked against what it is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from data_prep.atomic import write_bytes
from finetune.classifier import HEAD, load_classifier, read_head, read_labels
from finetune.encoder_classifier import EncoderClassifier, encode
from finetune.errors import FinetuneError

OPSET = 17
TOLERANCE = 1e-4
PROBE_TEXTS = ("What does it cost?", "Where is the spare wheel, and how do I change it on a slope?", "Hello")
LONG_PROBE = " ".join(PROBE_TEXTS * 25)
LARGEST_FILE = 2**31 - 1
"""Bytes that one ONNX file can hold."""


def export_onnx(folder: Path, output: Path) -> float:
    """Write the classifier in `folder` as the ONNX file `output`; return its largest difference of probabilities.

    A head's graph takes `embeddings` (n, d), an encoder's `input_ids` and `attention_mask` (n, t), of a tokenizer that
    lies in `folder`; both give `probabilities` (n, c), and name the labels in their metadata. The file is run by
    onnxruntime against the classifier itself before it takes its name. Raises FinetuneError if onnx is missing or the
    probabilities differ by more than `TOLERANCE`.
    """
    _require()
    told = read_labels(folder)
    model = _head_graph(folder) if told["mode"] == "head" else _encoder_graph(folder)
    entry = model.metadata_props.add()
    entry.key, entry.value = "labels", json.dumps(told["labels"], ensure_ascii=False)
    data = model.SerializeToString()
    difference = _difference(data, folder, told)
    if not difference <= TOLERANCE:
        raise FinetuneError(f"{folder}: the ONNX graph differs from the classifier by {difference:.2g}")
    write_bytes(output, data)
    return difference


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise FinetuneError(f"the package {error.name} is missing: pip install 'rag-vs-finetune[export]'") from error


def _head_graph(folder: Path) -> Any:
    """Return softmax(x Wᵀ + b) as an ONNX model."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = read_head(folder)
    classes, dimension = weight.shape
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["embeddings", "weight", "bias"], ["scores"], transB=1),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        HEAD.removesuffix(".safetensors"),
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", dimension])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes])],
        [
            numpy_helper.from_array(weight.astype(np.float32), "weight"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    return model


def _encoder_graph(folder: Path) -> Any:
    """Return a whole encoder as an ONNX model."""
    import io

    import onnx
    import torch

    tokenizer, model = EncoderClassifier(read_labels(folder)["labels"], folder).parts()
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if size > LARGEST_FILE:
        raise FinetuneError(f"{folder}: {size / 1e9:.1f} GB of weights are more than one ONNX file can hold (2.1 GB)")

    class Probabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits.softmax(dim=1)

    batch = encode(tokenizer, PROBE_TEXTS)
    model.set_attn_implementation("eager")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Probabilities().eval(),
            (batch["input_ids"], batch["attention_mask"]),
            buffer,  # type: ignore[arg-type]
            input_names=["input_ids", "attention_mask"],
            output_names=["probabilities"],
            dynamic_axes={name: {0: "n", 1: "t"} for name in ("input_ids", "attention_mask")}
            | {"probabilities": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _difference(data: bytes, folder: Path, told: dict[str, Any]) -> float:
    """Return the largest difference of probabilities between the graph and the classifier, on fixed inputs.

    An encoder is asked short and long texts, up to the longest that its tokenizer lets through (about 500 tokens).
    """
    import numpy as np
    from onnxruntime import InferenceSession

    session = InferenceSession(data, providers=["CPUExecutionProvider"])
    if told["mode"] == "head":
        vectors = np.random.default_rng(0).standard_normal((8, told["dimension"])).astype(np.float32)

        class Fixed:
            def embed_documents(self, texts: list[str]) -> Any:
                return vectors[: len(texts)]

        expected = load_classifier(folder, Fixed()).probabilities([""] * len(vectors))
        return float(np.abs(session.run(None, {"embeddings": vectors})[0] - expected).max())
    classifier = EncoderClassifier(told["labels"], folder)
    tokenizer, _ = classifier.parts()
    largest = 0.0
    for texts in (PROBE_TEXTS[:1], PROBE_TEXTS, (*PROBE_TEXTS, LONG_PROBE)):
        batch = encode(tokenizer, texts)
        inputs = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
        found = session.run(None, inputs)[0]
        largest = float(np.maximum(largest, np.abs(found - classifier.probabilities(texts)).max()))
    return largest

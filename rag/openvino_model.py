"""all-MiniLM-L6-v2 as an OpenVINO model: converted once in a process of its own, cached by the weights' hash.

The process that asks for the model needs no torch: conversion, which does, runs as
`python -m rag.openvino_model SOURCE TARGET`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import EmbeddingError

if TYPE_CHECKING:
    from torch import nn

_FILES = ("model.xml", "model.bin")
_CALIBRATED_ON = 64
"""Texts that NNCF sees."""
_SMOOTHING = 0.7
"""SmoothQuant's alpha (Xiao et al. 2023, arXiv 2211.10438): how much of the activations' spread the weights take over.
Of 0.5 to 0.95 the one whose vectors are nearest to float32; correcting biases besides brought nothing."""
INT8 = f"int8-{_SMOOTHING}"
"""Names how weights and activations are rounded: models and vectors of another rounding are others."""
_CALIBRATION_MODULES = ("argparse", "datetime", "email.message", "http.client", "json", "logging", "pathlib", "shutil")


def cache_root() -> Path:
    """Return the folder for what can be made again: `$VERSUS_CACHE`, else `~/.cache/versus`."""
    named = os.environ.get("VERSUS_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "versus"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file at `path`, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quiet_openvino() -> Any:
    """Import and return `openvino` with its telemetry kept out.

    OpenVINO's converter falls back to a stub where its telemetry package cannot be imported, so that package is
    hidden from this process before the first import.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def converted_model(source: Path, weights_sha256: str, check_source: Callable[[], None], *, int8: bool = False) -> Path:
    """Return the `model.xml` made from the model folder `source`, converting it where the cache has no sound copy.

    With `int8` it is quantised by NNCF besides, which takes about ten seconds once.
    `check_source` is called before a conversion, to raise where the source is not what it should
    be. Raises `EmbeddingError` where the cache cannot be written or the conversion fails.
    """
    target = cache_root() / "openvino" / f"{weights_sha256[:16]}-{version('openvino')}{f'-{INT8}' if int8 else ''}"
    if not _is_sound(target):
        check_source()
        _convert_into(source, target, int8)
    return target / "model.xml"


def _is_sound(folder: Path) -> bool:
    try:
        recorded = json.loads((folder / "hashes.json").read_text(encoding="utf-8"))
        return all(recorded[name] == file_sha256(folder / name) for name in _FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _convert_into(source: Path, target: Path, int8: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    except OSError as error:
        raise EmbeddingError(
            f"{target.parent}: cannot write the converted embedder ({error.strerror}); "
            "set VERSUS_CACHE to a folder that can be written"
        ) from error
    try:
        _run_conversion(source, work, int8)
        (work / "hashes.json").write_text(json.dumps({name: file_sha256(work / name) for name in _FILES}))
        _move_into_place(work, target)
    except OSError as error:
        raise EmbeddingError(f"{target}: cannot keep the converted embedder ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move_into_place(work: Path, target: Path) -> None:
    """Rename `work` to `target`; where another process was faster, its copy stays if it is sound."""
    if target.exists() and not _is_sound(target):
        shutil.rmtree(target, ignore_errors=True)
    try:
        work.rename(target)
    except OSError:
        if not _is_sound(target):
            raise


def _run_conversion(source: Path, work: Path, int8: bool) -> None:
    command = [sys.executable, "-m", "rag.openvino_model", str(source), str(work), *(["int8"] if int8 else [])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EmbeddingError(f"{source}: converting the embedder to OpenVINO failed: {last}")


def convert(source: Path, target: Path, *, int8: bool = False) -> None:
    """Write the sentence encoder in `source` (a BERT folder, mean pooling) to `target/model.xml` and `.bin`.

    Inputs `input_ids` and `attention_mask`, int64 of shape (n, length); output unit vectors, float32 (n, d).
    Weights are stored in 16 bits, with `int8` in 8, and then the activations too.
    """
    openvino = quiet_openvino()
    import torch

    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    shape = openvino.PartialShape([-1, -1])
    model = openvino.convert_model(_sentence_encoder(source), example_input=example, input=[shape, shape])
    if int8:
        model = _quantised(model, source)
    openvino.save_model(model, str(target / "model.xml"))


def _quantised(model: Any, source: Path) -> Any:
    """Return `model` with 8-bit weights and activations, calibrated on the documentation of Python's own modules."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import nncf
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    samples = []
    for text in _calibration_texts(_CALIBRATED_ON):
        encoding = tokenizer.encode(text)
        samples.append([np.array([encoding.ids]), np.array([encoding.attention_mask])])
    smoothing = nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHING)
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            disable_bias_correction=True, smooth_quant_alphas=smoothing
        ),
    )


def _calibration_texts(count: int) -> list[str]:
    """Return `count` paragraphs of English that every Python installation has: docstrings of the standard library."""
    import importlib
    import inspect

    texts: list[str] = []
    for name in _CALIBRATION_MODULES:
        module = importlib.import_module(name)
        found = (inspect.getdoc(member) for _, member in inspect.getmembers(module))
        texts.extend(text for text in found if text and len(text.split()) >= 12)
    step = max(1, len(texts) // count)
    return texts[::step][:count]


def _sentence_encoder(source: Path) -> nn.Module:
    """Return a torch module that maps tokens to mean-pooled unit vectors (Reimers and Gurevych 2019)."""
    import torch
    from transformers import BertModel

    class SentenceEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel.from_pretrained(source, local_files_only=True, add_pooling_layer=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            mean = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=-1)

    return SentenceEncoder().eval()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), int8="int8" in sys.argv[3:])

"""Models as GGUF, the file of llama.cpp and Ollama, through llama.cpp's own converter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError

SCRIPT = "convert_hf_to_gguf.py"
ENVIRONMENT_VARIABLE = "LLAMA_CPP"
TYPES = ("f16", "bf16", "f32", "q8_0")
LACKING = ("BertGenerationDecoder", "BertGenerationEncoder", "BertLMHeadModel")
"""Architectures that llama.cpp is known to lack; pocket's is the first."""
MARK = b"GGUF"
_ROUNDING = {"f32": 1e-6, "f16": 2e-3, "bf16": 1e-2, "q8_0": 2e-2}


@dataclass(frozen=True)
class GgufReport:
    """A GGUF file: where, of which kind of weights, how large, and the architecture by which llama.cpp knows it."""

    file: Path
    kind: str
    architecture: str
    tensors: int
    size_bytes: int


def find_converter() -> Path:
    """Return llama.cpp's converter: of the checkout (or script) that $LLAMA_CPP names, else on the PATH.

    Raises FinetuneError that says how to get it.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        for place in (Path(named), Path(named) / SCRIPT):
            if place.is_file():
                return place
        raise FinetuneError(f"${ENVIRONMENT_VARIABLE} is {named}, but there is no {SCRIPT}: name a llama.cpp checkout")
    found = shutil.which(SCRIPT) or shutil.which(SCRIPT.removesuffix(".py"))
    if found is None:
        raise FinetuneError(
            f"llama.cpp's {SCRIPT} is not installed: get a checkout of github.com/ggml-org/llama.cpp and set "
            f"{ENVIRONMENT_VARIABLE} to its folder"
        )
    return Path(found)


def check_architecture(model: Path) -> None:
    """Raise FinetuneError if llama.cpp is known to lack the architecture of the model in folder `model`."""
    names = json.loads((model / "config.json").read_text(encoding="utf-8")).get("architectures") or ["unknown"]
    if any(name in LACKING for name in names):
        raise FinetuneError(
            f"llama.cpp has no architecture for {', '.join(names)} (pocket is one), so there is no GGUF of it: use "
            "--to merged, int8 or int4, or train the adapter on a Llama, Mistral or Qwen base"
        )


def convert_to_gguf(model: Path, output: Path, *, kind: str = "f16") -> GgufReport:
    """Convert the model in folder `model` to the file `output`, and check the file against the model.

    `output` takes its content in one step, once the file opens and its token embeddings are the model's. Raises
    FinetuneError with the converter's own words if it fails.
    """
    if kind not in TYPES:
        raise FinetuneError(f"no GGUF type called {kind!r}; there are: {', '.join(TYPES)}")
    check_architecture(model)
    converter = find_converter()
    _require_reader()
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.new")
    try:
        _run([*_interpreter(converter), str(converter), str(model), "--outfile", str(draft), "--outtype", kind])
        report = _check(draft, model, kind)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return GgufReport(output, kind, report[0], report[1], output.stat().st_size)


def _interpreter(converter: Path) -> list[str]:
    """Return what runs the converter: this Python for a script, nothing for a program."""
    return [sys.executable] if converter.suffix == ".py" else []


def _run(command: list[str]) -> None:
    """Run the converter; raises FinetuneError with what it said last."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise FinetuneError(f"{command[0]}: cannot be run: {error.strerror or error}") from error
    if done.returncode == 0:
        return
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["nothing"]
    reason = next((line for line in said if "is not supported" in line), said[-1])
    missing = reason.partition("No module named ")[2].strip("'\"")
    mend = f"; install it: pip install {missing.split('.')[0]}" if missing else ""
    raise FinetuneError(f"llama.cpp's converter failed: {reason.strip()}{mend}")


def _require_reader() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise FinetuneError("the package gguf is missing: pip install 'rag-vs-finetune[export]'") from error
    return gguf


def _check(file: Path, model: Path, kind: str) -> tuple[str, int]:
    """Return a file's architecture and number of tensors; raises FinetuneError if it is not the model's."""
    gguf = _require_reader()
    if not file.is_file() or _first_bytes(file, len(MARK)) != MARK:
        raise FinetuneError("llama.cpp's converter wrote no GGUF file")
    try:
        reader = gguf.GGUFReader(str(file))
        architecture = str(reader.fields["general.architecture"].contents())
        embeddings = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
        found = gguf.quants.dequantize(embeddings.data, embeddings.tensor_type)
    except (ValueError, KeyError, StopIteration) as error:
        raise FinetuneError(f"llama.cpp's converter wrote a file that cannot be read: {error!r}") from error
    expected = _embeddings(model)
    rows = min(len(expected), len(found))
    difference = abs(expected[:rows] - found[:rows]).max() / abs(expected).max()
    if not difference <= _ROUNDING[kind]:
        raise FinetuneError(f"the GGUF file's token embeddings differ from the model's by {difference:.2g}")
    return architecture, len(reader.tensors)


def _first_bytes(file: Path, count: int) -> bytes:
    """Return how a file begins, without reading the rest of it."""
    with file.open("rb") as stream:
        return stream.read(count)


def _embeddings(model: Path) -> Any:
    """Return the model's token embeddings as a float32 array of shape (v, d), read from its safetensors."""
    from safetensors import safe_open

    for path in sorted(model.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                if name.endswith(("embed_tokens.weight", "wte.weight", "word_embeddings.weight")):
                    return weights.get_tensor(name).float().numpy()
    raise FinetuneError(f"{model}: no token embeddings found to check the GGUF file against")

"""Load base models and tokenizers from this machine, and tell base models apart by their weights.

Nothing is fetched from a network: a Hugging Face id must be in the local cache. Only safetensors are read, and no code
of a model's author is run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import warnings
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.chat import require_chat_template
from finetune.errors import ModelError
from finetune.processes import is_sharded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POCKET = "pocket"
MODELS_VARIABLE = "VERSUS_MODELS"
"""Environment variable of the folders (separated as in PATH) in which models made here are found by name."""
_VOLATILE_CONFIG = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
_FOUR_BIT_DEVICES = ("cuda", "xpu", "cpu")
_BLOB_NAME = re.compile(r"[0-9a-f]{64}")


def resolve_model(name: str) -> str:
    """Return what transformers loads for `name`: pocket's folder, a local folder, or the Hugging Face id itself.

    A bare name is also looked for in the folders of `$VERSUS_MODELS` (the command puts its workspace's `models` there).
    Raises ModelError if pocket is not there, or if `name` looks like a path and is no model folder.
    """
    from finetune.pocket import pocket_path

    folder = pocket_path() if name == POCKET else Path(name)
    made = [] if Path(name).name != name else [place / name for place in model_places()]
    for place in (folder, *made):
        if (place / "config.json").is_file():
            return str(place)
    if name == POCKET:
        raise ModelError(f"the bundled model is missing from {folder}: install the package again, or run make pocket")
    if folder.is_dir() or name.startswith(("/", "./", "../", "~")):
        raise ModelError(f"{name}: no model there (a model folder holds config.json and *.safetensors)")
    return name


def model_places() -> list[Path]:
    """Return the folders in which models made here are found by name."""
    return [Path(place) for place in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if place]


def model_folder(name: str) -> Path:
    """Return the folder with the files of `name` on this machine; raise ModelError if it is not here."""
    resolved = resolve_model(name)
    if Path(resolved).is_dir():
        return Path(resolved)
    quiet_libraries()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(resolved, local_files_only=True, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {resolved} is not on this machine: fetch it once with `hf download {resolved}`, "
            "or name a folder that holds it"
        ) from error


def load_tokenizer(name: str, *, chat: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `name`; it is sure to have a chat template (unless not `chat`) and a pad token."""
    quiet_libraries()
    from transformers import AutoTokenizer

    folder = model_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model {name}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    if chat:
        require_chat_template(tokenizer, name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    name: str,
    *,
    quantization: str | None = None,
    double_quantization: bool = False,
    dtype: str = "auto",
    device: str | None = None,
) -> PreTrainedModel:
    """Load the causal model `name` in evaluation mode on `device` (default: CUDA if there is one, else CPU).

    `quantization="nf4"` holds linear layers in 4 bits and computes in `dtype`. A model that several processes
    are going to share stays in main memory, since one GPU need not hold it. Raises ModelError.
    """
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    device = device or default_device()
    if quantization is not None and (problem := quantization_problem(quantization, device)):
        raise ModelError(f"model {name}: {problem}")
    if device.startswith("cuda"):
        without_cudnn_attention()
    arithmetic = choose_dtype(dtype, device)
    options: dict[str, Any] = {"dtype": arithmetic, "local_files_only": True, "use_safetensors": True}
    if quantization is not None:
        options["quantization_config"] = _nf4(arithmetic, double_quantization)
    folder = model_folder(name)
    quantized = quantization is not None or stored_quantization(folder) is not None
    if quantized:
        options["device_map"] = {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), **options)
        if not quantized and not is_sharded():
            model.to(device)
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        hint = f" with quantization {quantization} on {device}" if quantization else ""
        raise ModelError(f"model {name} cannot be loaded{hint}: {_first_line(error)}") from error
    return model.eval()


def without_cudnn_attention() -> None:
    """Keep torch from computing attention with cuDNN, in this process.

    torch prefers it on GPUs of compute capability 9 and up. cuDNN makes a plan for every new shape, in tenths of a
    second or more: every length of a packed row is such a shape, and every token that is written.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def stored_quantization(folder: Path) -> str | None:
    """Return the method in which the weights of a model folder were written (`bitsandbytes`, say), None if in full."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    method = config.get("quantization_config", {}).get("quant_method")
    return str(method) if method else None


@lru_cache(maxsize=64)
def model_context(name: str) -> int:
    """Return how many tokens the model `name` can hold, read from its config.json without loading weights."""
    config = json.loads((model_folder(name) / "config.json").read_text(encoding="utf-8"))
    length = config.get("max_position_embeddings", config.get("text_config", {}).get("max_position_embeddings"))
    if not isinstance(length, int):
        raise ModelError(f"model {name}: its config.json does not say max_position_embeddings, its longest context")
    return length


def default_device() -> str:
    """Return `cuda` if there is such a device, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(name: str, device: str) -> torch.dtype:
    """Return the torch dtype called `name`; `auto` is the fastest safe one of `device`."""
    import torch

    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        return chosen
    if device.startswith("cuda"):
        return torch.bfloat16 if gpu_has_bf16() else torch.float16
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


def arithmetic_problem(name: str, device: str) -> str | None:
    """Return why `device` cannot train in the dtype called `name`, and the mend; None if it can."""
    if name == "float16" and device == "cpu":
        return 'float16 is trained on GPUs only: set model.dtype to "auto", "bfloat16" or "float32"'
    if name == "bfloat16" and device.startswith("cuda") and not gpu_has_bf16():
        return 'this GPU has no bfloat16: set model.dtype = "float16" (see the recipe mistral-7b-t4-fp16)'
    return None


def quantization_problem(name: str, device: str) -> str | None:
    """Return why `device` cannot hold weights in the quantisation called `name`, and the mend; None if it can.

    bitsandbytes may be there and not work (it has no library for this CUDA, say), so a few numbers are tried.
    """
    kind, other = device.split(":")[0], "leave quantization out, or choose another device"
    if kind not in _FOUR_BIT_DEVICES:
        known = " and ".join(_FOUR_BIT_DEVICES)
        return f"4-bit weights (quantization {name}) run on {known}, not on {device}: {other}"
    if find_spec("bitsandbytes") is None:
        return f"4-bit weights (quantization {name}) need bitsandbytes: install it, or leave quantization out"
    quiet_libraries()
    try:
        failure = _four_bit_failure(device)
    except ImportError as error:
        failure = f"it cannot be imported ({_first_line(error)})"
    if failure is None:
        return None
    return (
        f"4-bit weights (quantization {name}) cannot be computed on {device}, as bitsandbytes does not work there: "
        f"{failure}: install it again for this device, or {other}"
    )


@lru_cache(maxsize=8)
def _four_bit_failure(device: str) -> str | None:
    """Return what goes wrong when a few numbers are brought into 4 bits and back on `device`; None if all is well."""
    import torch
    from bitsandbytes import functional

    given = torch.linspace(-1, 1, 128, device=device)
    try:
        packed, state = functional.quantize_4bit(given, blocksize=64, quant_type="nf4")
        found = functional.dequantize_4bit(packed, state)
    except (RuntimeError, NotImplementedError, OSError, AttributeError) as error:
        return _first_line(error)
    return None if float((given - found).abs().max()) < 0.2 else "numbers come back wrong"


def gpu_has_bf16() -> bool:
    """Tell whether the CUDA device multiplies bfloat16 itself; older ones (a T4, say) emulate it slowly."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def cpu_has_bf16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); others emulate it slowly."""
    import torch

    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, test)()) for test in tests if hasattr(torch.cpu, test))


def base_fingerprint(name: str) -> str:
    """Return the SHA-256 over weights and configuration of `name`: what an adapter is tied to."""
    folder = model_folder(name)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"model {name}: no *.safetensors in {folder} (other weight formats are not read)")
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _VOLATILE_CONFIG}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    for path in weights:
        digest.update(path.name.encode() + _file_hash(path).encode())
    return digest.hexdigest()


def quiet_libraries() -> None:
    """Switch off telemetry, progress bars and advice of the model libraries; call before importing them."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "bitsandbytes", "peft", "trl", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


def _nf4(arithmetic: torch.dtype, double: bool) -> Any:
    """Return the 4-bit configuration of QLoRA; to be shared out among processes it is stored as `arithmetic`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=arithmetic,
        bnb_4bit_quant_storage=arithmetic if is_sharded() else None,
    )


def _file_hash(path: Path) -> str:
    """Return the SHA-256 of a file; a file of the Hugging Face cache is named by it."""
    real = path.resolve()
    if _BLOB_NAME.fullmatch(real.name):
        return real.name
    stat = real.stat()
    return _content_hash(str(real), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _content_hash(path: str, size: int, modified: int) -> str:
    """Hash a file's content once per size and time of change."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its class name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def parameter_count(name: str) -> int:
    """Return how many parameters the weight files of `name` hold, read from their headers alone."""
    from safetensors import safe_open

    count = 0
    for path in sorted(model_folder(name).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return count

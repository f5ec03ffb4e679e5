"""Every call to PEFT: put LoRA onto a model, save it, load it, switch it, merge it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.config import LoraSection
from finetune.errors import AdapterError, RecipeError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FOLD_BELOW = 200_000_000
"""Parameters up to which a base model is held once more per adapter, in part, to answer faster."""


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of all linear layers of `model` but its output head, found by their kind, not listed."""
    import torch

    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, torch.nn.Linear) or _is_conv1d(module)) and module is not head
    ]
    if not names:
        raise RecipeError("the model has no linear layer to adapt; name lora.target_modules")
    return names


def attach_lora(model: PreTrainedModel, lora: LoraSection, *, checkpointing: bool = False) -> Any:
    """Freeze `model` and put a fresh LoRA adapter named `default` onto it; return the PeftModel.

    The update of a layer with input x is alpha / rank · B A x; B starts at zero (Hu et al. 2021, arXiv 2106.09685).
    A model in 4 bits is prepared for training first. Raises RecipeError if no layer has a named target module.
    """
    from peft import get_peft_model, prepare_model_for_kbit_training

    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    config = lora_config(model, lora)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        targets = list(lora.target_modules)
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear_layers(model)}))
        raise RecipeError(f"lora.target_modules {targets} fit no layer; the model's linear layers: {known}") from error


def lora_config(model: PreTrainedModel, lora: LoraSection) -> LoraConfig:
    """Return PEFT's configuration of a fresh adapter for `model`; raise RecipeError if it has no linear layer."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=list(lora.target_modules) or _target_names(model),
        task_type="CAUSAL_LM",
        bias="none",
    )


def continue_lora(model: PreTrainedModel, folder: Path, *, checkpointing: bool = False) -> Any:
    """Return `model`, frozen, with the adapter in `folder` on it as `default`, to be trained on. Raises AdapterError.

    A model in 4 bits is prepared for training first.
    """
    from peft import PeftModel, prepare_model_for_kbit_training

    _check_weights(folder / WEIGHTS)
    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder}: the adapter cannot be loaded: {str(error).splitlines()[0]}") from error


def lora_section(model: Any) -> LoraSection:
    """Return the settings of the adapter `default` of a PeftModel, as a recipe would name them."""
    config = model.peft_config["default"]
    return LoraSection(
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        rslora=config.use_rslora,
        target_modules=tuple(sorted(config.target_modules)),
    )


def drop_adapter(model: Any, name: str) -> None:
    """Take the adapter `name` off a PeftModel, if it is there."""
    if name in model.peft_config:
        model.delete_adapter(name)


def save_adapter(model: Any, folder: Path, base: str, weights: dict[str, Any] | None = None) -> None:
    """Write the active adapter's weights (safetensors) and configuration into `folder`; `base` names its base model.

    `weights` takes the place of the model's own state where that is shared out among processes.
    """
    model.save_pretrained(str(folder), safe_serialization=True, **({} if weights is None else {"state_dict": weights}))
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_whole(folder: Path) -> None:
    """Raise AdapterError unless `folder` holds an adapter's weights and configuration."""
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if not folder.is_dir() or len(missing) == 2:
        raise AdapterError(f"{folder}: there is no adapter; train one with `versus train`")
    if missing:
        raise AdapterError(f"{folder}: {missing[0]} is missing, so the adapter is not whole; train it again")


class AdapterSwitch:
    """A base model with any number of adapters, one or none of them active. Not thread-safe: its owner locks.

    Adapters of a small unquantised base are folded into copies of the weights that they change, and switching swaps
    those: answers take about two thirds of the time. On a larger base they stay beside it, and PEFT switches them.
    `fold` says otherwise.
    """

    def __init__(self, base: PreTrainedModel, *, fold: bool | None = None) -> None:
        size = sum(parameter.numel() for parameter in base.parameters())
        small = size <= FOLD_BELOW and not getattr(base, "is_quantized", False)
        self._folds = small if fold is None else fold
        self._base: Any = base
        self._peft: Any = None
        self._names: list[str] = []
        self._active: str | None = None
        self._weights: dict[str | None, dict[str, torch.Tensor]] = {None: {}}

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that were added, in order."""
        return tuple(self._names)

    @property
    def memory_bytes(self) -> int:
        """What the weights take in memory, those of adapters beside the base included."""
        return int(self._base.get_memory_footprint())

    def add(self, name: str, folder: Path) -> None:
        """Load the adapter in `folder` under `name`. Raises AdapterError if it is damaged or fits another model."""
        check_whole(folder)
        _check_weights(folder / WEIGHTS)
        try:
            if self._folds:
                self.activate(None)
                self._fold(name, folder)
            else:
                self._attach(name, folder)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise AdapterError(f"{folder}: the adapter cannot be loaded: {str(error).splitlines()[0]}") from error
        self._names.append(name)

    def activate(self, name: str | None) -> Any:
        """Make `name` the active adapter (None: the bare base) and return the model to call."""
        if name is not None and name not in self._names:
            raise AdapterError(f"no adapter named {name!r} is loaded; there are: {', '.join(self._names) or 'none'}")
        if name != self._active:
            if self._folds:
                self._swap(name)
            else:
                self._switch(name)
            self._active = name
        return self._base

    def _fold(self, name: str, folder: Path) -> None:
        """Keep the weights that the adapter would change, changed; leave the base as it was."""
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        adapted = PeftModel.from_pretrained(self._base, str(folder))
        layers = {path: layer for path, layer in self._base.named_modules() if isinstance(layer, BaseTunerLayer)}
        originals = {path: layer.get_base_layer().weight.data for path, layer in layers.items()}
        adapted.merge_adapter(safe_merge=True)
        self._weights[name] = {path: layer.get_base_layer().weight.data for path, layer in layers.items()}
        for path, layer in layers.items():
            layer.get_base_layer().weight.data = originals[path]
        self._base = adapted.unload().eval()
        self._weights[None].update(originals)

    def _swap(self, name: str | None) -> None:
        """Put an adapter's weights in place, and the base's own where it has none."""
        for path, weight in {**self._weights[None], **self._weights[name]}.items():
            self._base.get_submodule(path).weight.data = weight

    def _attach(self, name: str, folder: Path) -> None:
        """Let PEFT load the adapter beside the base, switched off."""
        from peft import PeftModel

        if self._peft is None:
            self._peft = PeftModel.from_pretrained(self._base, str(folder), adapter_name=_internal(name)).eval()
            self._base = self._peft.get_base_model()
        else:
            self._peft.load_adapter(str(folder), adapter_name=_internal(name), is_trainable=False)
        self._switch(self._active)

    def _switch(self, name: str | None) -> None:
        """Let PEFT make an adapter the active one, or switch all off."""
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(_internal(name), inference_mode=True)


def _check_weights(path: Path) -> None:
    """Raise AdapterError unless `path` is a whole safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: damaged ({error}); train the adapter again") from error
    if not names:
        raise AdapterError(f"{path}: it holds no weights; train the adapter again")


def load_for_merging(base: PreTrainedModel, folder: Path) -> Any:
    """Return `base` with the adapter in `folder` on it, as a PeftModel. Raises AdapterError if it is damaged."""
    from peft import PeftModel

    _check_weights(folder / WEIGHTS)
    return PeftModel.from_pretrained(base, str(folder)).eval()


def merge(model: Any) -> PreTrainedModel:
    """Fold the active adapter of a PeftModel into its base weights, and return the plain model."""
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    return merged


def trainable_parameters(model: Any) -> Iterable[torch.nn.Parameter]:
    """Yield the parameters that training changes."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def _internal(name: str) -> str:
    """Return a module name for an adapter: torch forbids dots in it."""
    return "adapter_" + name.replace(".", "_dot_")


def _target_names(model: PreTrainedModel) -> list[str]:
    """Return the last parts of linear layers' names (`query`, `dense`, …), or whole names if the head shares one."""
    layers = linear_layers(model)
    last_parts = {name.rsplit(".", 1)[-1] for name in layers}
    head = model.get_output_embeddings()
    head_name = next((name for name, module in model.named_modules() if module is head), "")
    return layers if head_name.rsplit(".", 1)[-1] in last_parts else sorted(last_parts)


def _is_conv1d(module: Any) -> bool:
    """Tell whether a module is GPT-2's transposed linear layer."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")

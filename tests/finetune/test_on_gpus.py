"""What only a GPU brings about, tried where its answers come in: no device is needed."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.answering import LocalModel
from finetune.errors import ModelError, TrainingError
from finetune.memory_failures import readable_memory
from finetune.models import arithmetic_problem, choose_dtype, load_base
from finetune.trainer import MOST_SKIPPED, Clock, step_watcher
from finetune.training import train_adapter
from tests.finetune.test_training import recipe
from tests.finetune.tiny import questions


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch answers on a GPU that emulates bfloat16."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)


@pytest.mark.usefixtures("old_gpu")
def test_emulated_bfloat16_is_not_chosen() -> None:
    """A T4 computes in float16 where the arithmetic is free, and a recipe that asks for bfloat16 is refused there."""
    import torch

    assert choose_dtype("auto", "cuda") == torch.float16
    assert "no bfloat16" in str(arithmetic_problem("bfloat16", "cuda:0"))


def test_a_model_on_a_gpu_computes_attention_without_cudnn(
    llama: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Every length of a row would cost cuDNN a plan; on a CPU nothing is changed."""
    import torch
    from transformers import PreTrainedModel

    request.addfinalizer(lambda: torch.backends.cuda.enable_cudnn_sdp(True))
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_base(str(llama), device="cpu")
    assert torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(PreTrainedModel, "to", lambda model, device: model)
    load_base(str(llama), device="cuda", dtype="float32")
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]


def test_a_base_that_does_not_fit_while_it_is_quantised_is_told_as_memory() -> None:
    """Transformers swallows the reason, and says of the conversion of weights only that it failed."""
    said = "We encountered some issues during automatic conversion of the weights. For details look at the report!"
    with pytest.raises(TrainingError, match="out of memory while training x: lower it"), readable_memory("x", advice):
        try:
            raise RuntimeError(said)
        except RuntimeError as error:
            raise ModelError("x cannot be loaded") from error


@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN"])
def test_memory_that_a_gpu_library_lacks_is_told_as_memory(library: str) -> None:
    """Out of memory has a word of its own in cuBLAS and cuDNN; other failures of theirs stay what they are."""
    with pytest.raises(TrainingError, match="out of memory while training x: lower it"), readable_memory("x", advice):
        raise RuntimeError(f"CUDA error: {library}_STATUS_ALLOC_FAILED when calling `create(handle)`")
    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"), readable_memory("x", advice):
        raise RuntimeError(f"{library}_STATUS_NOT_SUPPORTED")


def advice() -> str:
    """Return an advice."""
    return "lower it"


class Logs:
    """What a trainer logs to the watcher, step after step."""

    def __init__(self, folder: Path, *, fp16: bool) -> None:
        from transformers import TrainerState

        self.watcher = step_watcher(Clock(None), None)
        self.args, self.state = SimpleNamespace(fp16=fp16, output_dir=str(folder)), TrainerState()

    def __call__(self, **logs: float) -> None:
        """Log one step."""
        self.state.log_history.append({**logs, "step": len(self.state.log_history) + 1})
        self.watcher.on_log(self.args, self.state, None, logs=logs)


def test_float16_may_skip_steps_but_not_for_ever(tmp_path: Path) -> None:
    """The loss scaler finds its factor by gradients that are too large; many of them in a row are refused."""
    log = Logs(tmp_path, fp16=True)
    for _ in range(3):
        for _ in range(MOST_SKIPPED - 1):
            log(loss=2.0, grad_norm=math.inf)
        log(loss=2.0, grad_norm=1.0)
    for _ in range(MOST_SKIPPED - 1):
        log(loss=2.0, grad_norm=math.nan)
    with pytest.raises(TrainingError, match="grad norm"):
        log(loss=2.0, grad_norm=math.inf)


def test_a_broken_loss_stops_at_once(tmp_path: Path) -> None:
    """In float16 too; in any other arithmetic a broken gradient as well."""
    with pytest.raises(TrainingError, match="the loss"):
        Logs(tmp_path, fp16=True)(loss=math.nan, grad_norm=1.0)
    with pytest.raises(TrainingError, match="grad norm"):
        Logs(tmp_path, fp16=False)(loss=2.0, grad_norm=math.inf)


def test_a_resumed_paged_optimizer_goes_on_with_memory_that_is_not_paged(tmp_path: Path) -> None:
    """A checkpoint's state says that it is paged and, loaded straight onto its device, is not: it is not prefetched."""
    import torch
    from bitsandbytes.optim import PagedAdamW8bit

    def optimizer() -> tuple[Any, torch.nn.Parameter]:
        weight = torch.nn.Parameter(torch.ones(64, 64))
        weight.grad = torch.ones(64, 64)
        return PagedAdamW8bit([weight], lr=1e-2), weight

    first, trained = optimizer()
    first.step()
    for name in ("state1", "state2"):
        first.state[trained][name].is_paged = True
        first.state[trained][name].page_deviceid = 0
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    resumed, weight = optimizer()
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    state = SimpleNamespace(compute_steps=lambda *_: None, max_steps=2, global_step=1)
    control = SimpleNamespace(should_training_stop=False)
    step_watcher(Clock(None), None).on_train_begin(None, state, control, optimizer=resumed)
    resumed.step()
    assert (weight < 1).all()


@pytest.mark.parametrize("double", [True, False])
def test_an_adapter_answers_on_the_base_it_was_trained_on(llama: Path, tmp_path: Path, double: bool) -> None:
    """4-bit weights are quantised doubly, unless the adapter's recipe did not do so."""
    plan = recipe(llama, quantization="nf4", double=double, max_steps=1)
    train_adapter(plan, questions(), tmp_path / "q", device="cpu")
    model = LocalModel(str(llama), quantization="nf4", device="cpu")
    model.add_adapter("q", tmp_path / "q")
    assert held_doubly(model) is double


def test_a_base_alone_is_quantised_doubly(llama: Path) -> None:
    """So it answers beside adapters of the recipes for 7B models as they were trained."""
    assert held_doubly(LocalModel(str(llama), quantization="nf4", device="cpu"))


def held_doubly(model: LocalModel) -> bool:
    """Tell whether the constants of a model's 4-bit weights are quantised too."""
    model.warm_up()
    held = model._get_loaded().switch.activate(None)
    return bool(held.config.quantization_config.bnb_4bit_use_double_quant)

"""AdamW on fp32 copies of a model's weights, so that weights held in bf16 still take small steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import TrainingError
from finetune.processes import add_up

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from finetune.pretraining import PretrainingConfig


class MasterWeights:
    """AdamW on fp32 copies of a model's weights, which may themselves be bf16."""

    shared = False
    """Whether each process holds a part only (see `sharding.SharedWeights`)."""

    def __init__(self, model: PreTrainedModel, config: PretrainingConfig) -> None:
        import torch

        self._clip = config.clip
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.masters = self._masters()
        groups = [
            {"params": [m for m in self.masters if m.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [m for m in self.masters if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)

    def _masters(self) -> list[torch.Tensor]:
        import torch

        masters = [weight.detach().float().clone() for weight in self.weights]
        for master in masters:
            master.grad = torch.zeros_like(master)
        return masters

    def step(self, rate: float) -> None:
        """Take one step with the weights' gradients, summed over the processes, which are cleared.

        Raises TrainingError if they are not finite.
        """
        import torch

        self._collect()
        if not torch.isfinite(self._clipped(self._clip)):
            raise TrainingError("the loss is no longer finite: lower learning_rate and resume from the last checkpoint")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.write_back()

    def _collect(self) -> None:
        """Move the weights' gradients, summed over the processes, to the masters."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight.grad is None:
                master.grad.zero_()  # type: ignore[union-attr]
            else:
                master.grad.copy_(weight.grad)  # type: ignore[union-attr]
            weight.grad = None
        add_up(master.grad for master in self.masters if master.grad is not None)

    def _clipped(self, largest: float) -> torch.Tensor:
        """Scale the gradients down to the norm `largest`; return what it was."""
        import torch

        return torch.nn.utils.clip_grad_norm_(self.masters, largest)

    def write_back(self) -> None:
        """Copy the masters into the model's weights."""
        import torch

        with torch.no_grad():
            for weight, master in zip(self.weights, self.masters, strict=True):
                weight.copy_(master)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"masters": self.masters, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.data.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.write_back()

"""One model shared out among processes (FSDP, version 2): each holds a part of every weight, in float32.

A process keeps its rows of every weight, of its gradient and of AdamW's averages. Just before a layer computes, its
weights are gathered from all, in the arithmetic of the recipe; then they are let go again. So the processes together
hold what one holds otherwise, and every one of them has to ask the model the same, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from finetune.master_weights import MasterWeights
from finetune.processes import place, process_count, summed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Result = TypeVar("Result")
State = dict[str, Any]


class Computing(Protocol):
    """What does work on a model: one that this process holds whole, or one that is shared."""

    def __call__(self, work: Callable[[PreTrainedModel], Result]) -> Result:
        """Return what `work` returns, which gets the model."""
        ...


def computing_on(model: PreTrainedModel) -> Computing:
    """Return what does work on a model that this process holds whole."""

    def compute(work: Callable[[PreTrainedModel], Result]) -> Result:
        return work(model)

    return compute


def share_out(model: PreTrainedModel, device: str) -> Computing:
    """Share `model` out among the processes, in place, onto their devices; return what does work on it from now on.

    It computes in the dtype that it comes in; the parts are float32. Gradients are added up over the processes.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    class Root(torch.nn.Module):
        """The model with whatever work is done on it: a loss, a measurement, an answer."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, work: Callable[[Any], Any]) -> Any:
            return work(self.model)

    mesh = init_device_mesh(device.partition(":")[0], (process_count(),))
    policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32)
    root = Root()
    for unit in (*layers(model), root):
        for weight in unit.parameters():
            if weight.dtype != torch.float32:
                weight.data = weight.data.float()
        shared = fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        shared.set_gradient_divide_factor(1.0)
        shared.set_force_sum_reduction_for_comms(True)
    return root


def layers(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the layers of a model, the members of its outermost lists of modules."""
    import torch

    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else layers(child)


def gather(model: PreTrainedModel, whole: PreTrainedModel | None) -> None:
    """Write the weights of a shared model into `whole`, one of the same shape; all processes call this.

    The first gives one that it holds alone, the others None.
    """
    places = dict(whole.named_parameters()) if whole is not None else {}
    for name, weight in model.named_parameters():
        gathered = cast(Any, weight).full_tensor()
        if whole is not None:
            places[name].data.copy_(gathered)


class SharedWeights(MasterWeights):
    """AdamW on this process's parts of a shared model's weights, which are float32 and their own masters."""

    shared = True

    def _masters(self) -> list[torch.Tensor]:
        return [cast(Any, weight.detach()).to_local() for weight in self.weights]

    def _collect(self) -> None:
        """Take over the gradients of the parts, which are summed over the processes already."""
        import torch

        for weight, master in zip(self.weights, self.masters, strict=True):
            grad = cast(Any, weight.grad)
            master.grad = torch.zeros_like(master) if grad is None else grad.to_local()
            weight.grad = None

    def _clipped(self, largest: float) -> torch.Tensor:
        """Scale the gradients down to the norm `largest`, that of all parts together; return what it was."""
        import torch

        grads = [master.grad for master in self.masters if master.grad is not None]
        own = float(torch.nn.utils.get_total_norm(grads))
        norm = torch.tensor(math.sqrt(summed(own**2)))
        torch.nn.utils.clip_grads_with_norm_(self.masters, largest, norm)
        return norm

    def write_back(self) -> None:
        """Do nothing: the masters are the model's own weights."""


def joined(parts: Sequence[State], optimizer: MasterWeights) -> State:
    """Return what `optimizer` takes up of a checkpoint in `parts`, one of each process that shared the model then.

    As many processes as want can go on from it, one that holds the whole model too. A tensor is put together at a time.
    """
    import torch

    def own(*keys: Any) -> torch.Tensor:
        held: list[Any] = [reduce(getitem, keys, cast(Any, part)) for part in parts]
        return own_rows(torch.cat(held), optimizer)

    count = len(optimizer.weights)
    moments = parts[0]["optimizer"]["state"]
    return {
        "masters": [own("masters", number) for number in range(count)],
        "optimizer": {
            **parts[0]["optimizer"],
            "state": {
                number: {
                    key: own("optimizer", "state", number, key) if value.ndim else value for key, value in known.items()
                }
                for number, known in moments.items()
            },
        },
    }


def own_rows(whole: torch.Tensor, optimizer: MasterWeights) -> torch.Tensor:
    """Return the rows of a weight that this process holds: all of them, or its part of a shared one."""
    if not optimizer.shared:
        return whole
    size = -(-len(whole) // process_count())
    return whole[place() * size : (place() + 1) * size].clone()

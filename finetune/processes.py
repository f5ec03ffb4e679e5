"""Training in several processes: who is the first, who waits for whom, on which device each works.

`accelerate launch` starts the processes and tells each its place by environment variables; without them everything here
does nothing, so that one process and many take the same path.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first may have an index to build."""


def process_count() -> int:
    """Return how many processes train together, over all machines; 1 if this one was not launched with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def place() -> int:
    """Return this process's number among all, from 0."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def is_first() -> bool:
    """Tell whether this process is the one that writes files and talks to the user."""
    return place() == 0


def is_sharded() -> bool:
    """Tell whether the processes share one model among them (FSDP), each holding a part."""
    return process_count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def join(device: str) -> str:
    """Meet the other processes, and return the device that this one works on: `cuda:1` of `cuda`, say."""
    if process_count() == 1:
        return device
    from accelerate import PartialState

    PartialState(cpu=device == "cpu", timeout=PATIENCE)
    return device if device == "cpu" or ":" in device else f"{device}:{os.environ['LOCAL_RANK']}"


def wait() -> None:
    """Go on when every process has come here."""
    if process_count() > 1:
        import torch

        torch.distributed.barrier()


def of_first(value: float) -> float:
    """Return the number that the first process has, in every process."""
    if process_count() == 1:
        return value
    import torch
    from accelerate import PartialState

    shared = torch.tensor([value], dtype=torch.float64, device=PartialState().device)
    torch.distributed.broadcast(shared, src=0)
    return float(shared.item())


def summed(value: float) -> float:
    """Return the sum of the numbers that the processes have, in every process."""
    if process_count() == 1:
        return value
    import torch
    from accelerate import PartialState

    shared = torch.tensor([value], dtype=torch.float64, device=PartialState().device)
    torch.distributed.all_reduce(shared)
    return float(shared.item())


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Put into each tensor the sum of what the processes hold there."""
    if process_count() == 1:
        return
    import torch

    under_way = [torch.distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
    for sum_ in under_way:
        sum_.wait()


@contextmanager
def first_goes_ahead(device: str) -> Iterator[None]:
    """Run the block in the first process, then in the others, which find its files ready."""
    join(device)
    if not is_first():
        wait()
    yield
    if is_first():
        wait()

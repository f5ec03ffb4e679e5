"""One training in several processes: the line of `accelerate launch` that starts them, on one machine or on several.

Without sharing, every process holds the whole model and they average their gradients. Shared (FSDP, version 2), each
holds a part of every layer: for models that one GPU cannot hold.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.errors import LaunchError

DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Launch:
    """How a training is spread: `processes` on each of `nodes` machines, of which this one is number `node`."""

    processes: int
    nodes: int = 1
    node: int = 0
    meeting_point: str | None = None
    """`HOST` or `HOST:PORT` of machine 0, where the processes find each other; needed with several machines."""
    sharded: bool = False
    precision: str = "no"
    """Arithmetic as accelerate names it: no, bf16 or fp16."""
    threads: int = 1
    """CPU threads of each process."""

    def __post_init__(self) -> None:
        problems = []
        if self.processes < 1 or self.nodes < 1:
            problems.append("processes and machines must be at least 1")
        elif self.processes * self.nodes < 2:
            problems.append("one process needs no --launch: leave it out, or give --processes")
        if not 0 <= self.node < max(self.nodes, 1):
            problems.append(f"this machine is number {self.node}: of {self.nodes} they are numbered from 0")
        if self.nodes > 1 and not self.meeting_point:
            problems.append("several machines need --meeting-point HOST[:PORT], the address of machine 0")
        if self.meeting_point and not self._port().isdigit():
            problems.append(f"--meeting-point {self.meeting_point}: the port is not a number")
        if problems:
            raise LaunchError("; ".join(problems))

    def line(self, command: Sequence[str]) -> list[str]:
        """Return the line that runs `python -m` with `command` in every process of this machine."""
        options = {
            "num_processes": self.processes * self.nodes,
            "num_machines": self.nodes,
            "machine_rank": self.node,
            "mixed_precision": self.precision,
            "dynamo_backend": "no",
            "num_cpu_threads_per_process": self.threads,
        }
        if self.meeting_point:
            options |= {"main_process_ip": self._host(), "main_process_port": self._port()}
        else:
            options |= {"main_process_port": free_port()}
        kind = ["--use_fsdp", *_flags(FSDP)] if self.sharded else ["--multi_gpu"]
        return ["accelerate", "launch", *kind, *_flags(options), "--module", *command]

    def _host(self) -> str:
        return (self.meeting_point or "").rpartition(":")[0] or (self.meeting_point or "")

    def _port(self) -> str:
        host, _, port = (self.meeting_point or "").rpartition(":")
        return port if host else str(DEFAULT_PORT)


FSDP = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": "true",
    "fsdp_state_dict_type": "FULL_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": "false",
    "fsdp_offload_params": "false",
}
"""Full sharding of parameters, gradients and optimiser state, layer by layer as the model's class names its layers."""


def run_line(line: Sequence[str]) -> int:
    """Run a line of `Launch.line` and return its exit code; each process has said itself what went wrong."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(launch_command_parser().parse_args(list(line[2:])))
    except (ChildFailedError, SignalException):
        return 1
    return 0


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _flags(options: dict[str, object]) -> list[str]:
    """Return options as they stand on a command line."""
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]

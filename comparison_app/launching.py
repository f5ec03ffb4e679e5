"""A command that runs itself in several processes: its options, and its line of `accelerate launch`."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence

from comparison_app.console import error_console

MODULE = "comparison_app.cli"


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Add `--launch` and what goes with it."""
    group = parser.add_argument_group("several GPUs or machines")
    group.add_argument(
        "--launch", action="store_true", help="print the `accelerate launch` line for several processes, and run it"
    )
    group.add_argument(
        "--processes", type=int, metavar="N", help="processes on this machine (default: one for each GPU)"
    )
    group.add_argument("--nodes", type=int, default=1, metavar="N", help="machines; run the same command on each")
    group.add_argument("--node", type=int, default=0, metavar="I", help="this machine's number, from 0")
    group.add_argument("--meeting-point", metavar="HOST[:PORT]", help="address of machine 0, for several machines")
    group.add_argument(
        "--sharded", action="store_true", help="share the model out among the GPUs (FSDP) where one cannot hold it"
    )


def launch(arguments: argparse.Namespace, dtype: str, command: Sequence[str]) -> int:
    """Print the line that runs `versus` with `command` in every process, run it, and return its exit code."""
    import torch

    from finetune.launching import Launch, run_line
    from finetune.models import choose_dtype, default_device

    device = default_device()
    processes = arguments.processes or (torch.cuda.device_count() if device == "cuda" else 1)
    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    plan = Launch(
        processes,
        arguments.nodes,
        arguments.node,
        arguments.meeting_point,
        arguments.sharded,
        names.get(choose_dtype(dtype, device), "no"),
        max(1, (os.cpu_count() or 1) // processes),
    )
    line = plan.line([MODULE, *command])
    error_console().print(shlex.join(line), soft_wrap=True, highlight=False, markup=False)
    return run_line(line)

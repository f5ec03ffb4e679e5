"""Join a Ray cluster, or start one of this machine's processors: for all that is spread over nodes."""

from __future__ import annotations

import os
import socket
from typing import Any

from rag.errors import ClusterError

LOCAL = "local"
"""The address that starts a cluster of this machine's processors."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": "120000",
}
"""No usage statistics; and patience with a busy machine, which takes longer than Ray's default to start its agents."""


def connect(address: str, attempts: int = 3) -> None:
    """Connect to the cluster at `address`, unless this process is connected already.

    `address`: `local`, `auto` (the cluster that this machine is part of), `HOST:PORT` or `ray://HOST:PORT`. A local
    start that a busy machine made too slow is tried again. Raises `ClusterError` where Ray is not installed or no
    cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise ClusterError("Ray is not installed; run `pip install 'rag-vs-finetune[scale]'`") from error

    if ray.is_initialized():
        return
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    settings = {"include_dashboard": False, **quiet} if address == LOCAL else {"address": address, **quiet}
    for attempt in range(1, attempts + 1):
        try:
            _check_reachable(address)
            ray.init(**settings)
            return
        except Exception as error:
            if address != LOCAL or attempt == attempts:
                raise ClusterError(
                    f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}); start one with `ray start --head`, "
                    f"or use --ray {LOCAL}"
                ) from error
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise `OSError` where nobody listens at HOST:PORT; Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()

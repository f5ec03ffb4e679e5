"""The container files, linted: what a build would trip over, and what must not be public. They are not built here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from comparison_app.cli import build_parser

SERVICE_KEYS = {
    "image", "build", "restart", "init", "read_only", "tmpfs", "security_opt", "cap_drop", "volumes", "command",
    "environment", "ports", "profiles", "healthcheck", "ipc", "deploy",
}  # fmt: skip
INSTRUCTION = re.compile(r"^(FROM|ARG|ENV|RUN|COPY|WORKDIR|USER|VOLUME|EXPOSE|HEALTHCHECK|ENTRYPOINT|CMD|LABEL)\b")


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    text = (Path(__file__).parents[2] / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    lines = [line for line in joined.splitlines() if line.strip()]
    assert all(INSTRUCTION.match(line) for line in lines), lines
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, decoded."""
    import yaml

    found: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_the_image_has_a_cpu_and_a_cuda_stage_and_neither_runs_as_root(instructions: list[tuple[str, str]]) -> None:
    """Each final stage ends as a user without rights, with a health check, an entry point and a volume."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions:
        if name == "FROM":
            current = stages.setdefault(rest.split(" AS ")[1], [])
        elif stages:
            current.append((name, rest))
    assert list(stages) == ["cpu-build", "cpu", "cuda"]
    for stage in ("cpu", "cuda"):
        names = [name for name, _ in stages[stage]]
        assert {"USER", "HEALTHCHECK", "ENTRYPOINT", "CMD", "VOLUME", "EXPOSE"} <= set(names)
        assert ("USER", "versus") in stages[stage]
        assert "RUN" not in names[names.index("USER") :]


def test_what_is_copied_exists_and_is_not_ignored(instructions: list[tuple[str, str]], repository: Path) -> None:
    """Every source of a COPY is in the repository and let in by .dockerignore."""
    let_in = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [rest for name, rest in instructions if name == "COPY" and "--from" not in rest]
    sources = {source for rest in copied for source in rest.split()[:-1]}
    assert {"data_prep", "rag", "finetune", "comparison_app", "docs_corpus", "constraints.txt"} <= sources
    for source in sources:
        assert (repository / source).exists(), source
        assert f"!{source}" in let_in


def test_base_images_and_services_are_pinned(instructions: list[tuple[str, str]], compose: dict[str, Any]) -> None:
    """No tag that means something else tomorrow, no package list left in the image, no pip cache."""
    images = [rest for name, rest in instructions if name == "ARG" and "IMAGE=" in rest]
    images += [service["image"] for service in compose["services"].values()]
    assert len(images) >= 6
    for image in images:
        tag = image.rstrip("}").rsplit(":", 1)[-1]
        assert re.search(r"\d|cpu", tag), image
        assert "latest" not in image
    for name, rest in instructions:
        if name == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists" in rest


def test_compose_has_the_services_and_publishes_them_on_this_machine_only(compose: dict[str, Any]) -> None:
    """app, serve, Milvus and vLLM; keys of the schema only; passwords are asked for, not set."""
    assert set(compose["services"]) == {"app", "serve", "milvus", "vllm"}
    assert compose["services"]["milvus"]["profiles"] == ["milvus"]
    assert compose["services"]["vllm"]["profiles"] == ["gpu"]
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
    for name in ("app", "serve"):
        service = compose["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert any(":?" in str(value) for value in service["environment"].values())


def test_the_commands_of_the_containers_are_commands(
    instructions: list[tuple[str, str]], compose: dict[str, Any], repository: Path
) -> None:
    """What the images and services run, and what docs/deploy.md tells to type, is what `versus` understands."""
    import json

    lines = [json.loads(rest) for name, rest in instructions if name == "CMD"]
    lines += [compose["services"][name]["command"] for name in ("app", "serve")]
    page = (repository / "docs" / "deploy.md").read_text(encoding="utf-8")
    shown = re.findall(r"`(versus (?:app|serve)[^`]*)`", page)
    lines += [shlex.split(line)[1:] for line in shown]
    assert len(lines) >= 10
    for line in lines:
        arguments = build_parser().parse_args(line)
        assert callable(arguments.handler)

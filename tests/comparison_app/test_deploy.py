"""The container files, linted by hadolint and the Compose schema, and what must not be public. They are not built."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from comparison_app.cli import build_parser
from comparison_app.errors import ComparisonError, ExperimentError
from comparison_app.experiment import load_experiment
from comparison_app.login import NEEDED, check_login

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
HADOLINT = (str(PROGRAMS / "hadolint"), "--no-color", "--failure-threshold", "style")
CHECK_SCHEMA = (sys.executable, "-m", "check_jsonschema", "--color", "never", "--builtin-schema")


def _lint(*command: str | Path) -> tuple[int, str]:
    """Run a linter; returns its exit code and what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    lines = [line for line in joined.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, decoded."""
    import yaml

    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_the_dockerfile_pleases_hadolint_which_finds_a_mistake(tmp_path: Path) -> None:
    """No remark, ShellCheck's on the shell lines included; a root user and an unpinned image are found."""
    assert _lint(*HADOLINT, REPOSITORY / "Dockerfile") == (0, "")
    worse = tmp_path / "Dockerfile"
    worse.write_text("FROM debian:latest\nRUN cd /srv && echo $UNQUOTED\nUSER root\n", encoding="utf-8")
    code, said = _lint(*HADOLINT, worse)
    assert code == 1
    assert {"DL3007", "DL3002", "SC2086"} <= set(re.findall(r"(?:DL|SC)\d+", said))


def test_compose_and_workflow_follow_their_published_schemas(tmp_path: Path) -> None:
    """The schemas of the Compose specification and of GitHub's workflows hold; a misspelt key does not."""
    checked = (("vendor.compose-spec", "compose.yaml"), ("vendor.github-workflows", ".github/workflows/ci.yml"))
    for schema, file in checked:
        code, said = _lint(*CHECK_SCHEMA, schema, REPOSITORY / file)
        assert code == 0, said
    text = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(text.replace("profiles:", "profile:"), encoding="utf-8")
    code, said = _lint(*CHECK_SCHEMA, "vendor.compose-spec", tmp_path / "compose.yaml")
    assert code == 1 and "'profile' was unexpected" in said


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
        assert ("USER", "10001:10001") in stages[stage]
        assert "RUN" not in names[names.index("USER") :]


def test_what_is_copied_is_what_installing_needs(instructions: list[tuple[str, str]], repository: Path) -> None:
    """All that .dockerignore lets in is copied, and that is the wheel's packages and what building it reads."""
    nothing, *rules = (repository / ".dockerignore").read_text(encoding="utf-8").split()
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert nothing == "*"
    assert let_in == {*packages, "constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert all((repository / source).exists() for source in let_in)
    copied = [rest for name, rest in instructions if name == "COPY" and "--from" not in rest]
    assert copied == ["constraints.txt ./", ". ./", ". ./"]


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
    """app, serve, Milvus and vLLM; passwords are asked for, not set."""
    assert set(compose["services"]) == {"app", "serve", "milvus", "vllm"}
    assert compose["services"]["milvus"]["profiles"] == ["milvus"]
    assert compose["services"]["vllm"]["profiles"] == ["gpu"]
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"] or volume == "./arms:/arms:ro"
    for name in ("app", "serve"):
        service = compose["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["environment"]["VERSUS_EXPERIMENT"] == "${VERSUS_EXPERIMENT:-}"
        assert service["env_file"] == [{"path": "keys.env", "required": False}]
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


def test_the_arms_that_deploy_shows_are_arms(repository: Path, tmp_path: Path) -> None:
    """Every example of an arm on the page is an experiment that loads, its store and its endpoint included."""
    page = (repository / "docs" / "deploy.md").read_text(encoding="utf-8")
    shown = [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[arms]]" in block]
    assert len(shown) == 4
    for block in shown:
        whole = block if block.startswith("name") else f'name = "arms"\ncorpus = "tern-manual"\n{block}'
        (tmp_path / "arms.toml").write_text(whole, encoding="utf-8")
        (arm,) = load_experiment(tmp_path / "arms.toml").arms
        assert arm.endpoint or "milvus" in arm.rag["store"]


def test_app_and_serve_take_their_arms_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that VERSUS_EXPERIMENT names is read before anything is shown or served; a missing one is an error."""
    monkeypatch.setenv("VERSUS_EXPERIMENT", str(tmp_path / "nothing.toml"))
    for line in (["app", "--no-browser"], ["serve"]):
        arguments = build_parser().parse_args([*line, "--workspace", str(tmp_path)])
        with pytest.raises(ExperimentError, match="nothing"):
            arguments.handler(arguments)


def test_a_login_that_cannot_work_is_said_before_the_app_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, a file that is no TOML, missing keys: all named at once; with all of them it passes."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ComparisonError, match=r"needs .*secrets\.toml"):
        check_login(tmp_path)
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    for text, words in (
        ("auth = ", "TOML"),
        ("auth = 1", "section"),
        ("[auth]\nclient_id = 'x'", "redirect_uri, cookie"),
    ):
        secrets.write_text(text)
        with pytest.raises(ComparisonError, match=words):
            check_login(tmp_path)
    secrets.write_text("[auth]\n" + "".join(f"{key} = 'x'\n" for key in NEEDED))
    check_login(tmp_path)
    monkeypatch.chdir(tmp_path)
    secrets.unlink()
    arguments = build_parser().parse_args(["app", "--login", "--no-browser", "--workspace", str(tmp_path)])
    with pytest.raises(ComparisonError, match="secrets"):
        arguments.handler(arguments)


def test_a_login_without_its_package_names_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that is named is one that the project has, and both images hold it."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "authlib" else real(name, *more)
    )
    with pytest.raises(ComparisonError, match=r"rag-vs-finetune\[login\]"):
        check_login(tmp_path)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "rag-vs-finetune" and "login" in project["optional-dependencies"]
    for line in re.findall(r"constraint constraints.txt '\.\[(.*)\]'", (REPOSITORY / "Dockerfile").read_text()):
        assert "login" in line.split(",")

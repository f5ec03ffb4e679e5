"""Quantised models, and what is pushed to a hub."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune.answering import FinetunedAnswerer, LocalModel
from finetune.errors import FinetuneError
from finetune.export_hub import push, stage
from finetune.export_quantised import quantise_adapter
from finetune.model_card import Score, base_licence, write_card
from finetune.run_record import RunRecord, read_run_record
from finetune.training import train_adapter
from tests.finetune.test_training import TRAINED, recipe
from tests.finetune.tiny import questions


@pytest.fixture(scope="module")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny Llama that knows the tiny questions."""
    folder = tmp_path_factory.mktemp("adapters") / "known"
    train_adapter(recipe(llama), questions(), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [("int8", 0.4), ("int4", 0.32)])
def test_a_quantised_model_stands_alone_and_still_knows(adapter: Path, tmp_path: Path, kind: str, share: float) -> None:
    """Its files are smaller, it loads as any model does, and it answers what was trained."""
    report = quantise_adapter(adapter, tmp_path / kind, kind)
    assert report.size_bytes == (tmp_path / kind / "model.safetensors").stat().st_size < report.size_before
    assert report.memory_bytes < share * report.memory_before
    assert 0 < report.largest_difference < 0.5
    model = LocalModel(str(tmp_path / kind))
    answers = FinetunedAnswerer(model.generator()).answer([question.question for question in questions()])
    assert [answer.data for answer in answers[:3]] == TRAINED
    assert read_run_record(tmp_path / kind).trained_ids == ("q1", "q2", "q3", "q4")


def test_an_unknown_quantisation_is_refused(tmp_path: Path) -> None:
    """The message names those there are."""
    with pytest.raises(FinetuneError, match="int8, int4"):
        quantise_adapter(tmp_path, tmp_path / "x", "int2")


@pytest.mark.slow
def test_what_is_shared_loads_and_names_no_path_of_this_machine(adapter: Path, llama: Path, tmp_path: Path) -> None:
    """The staged folder is an adapter with its card; base, data, hashes, scores and licence stand in the card."""
    scores = [Score("paraphrase", "token_f1", 0.61, 0.55, 0.67, 120)]
    staged = stage(adapter, tmp_path / "staged", name="known", licence="mit", scores=scores, run="r1")
    assert [name for name, _ in staged.files] == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "run_record.json",
    ]  # fmt: skip
    for name in ("README.md", "adapter_config.json", "run_record.json"):
        assert str(llama.parent) not in (staged.folder / name).read_text(), name
    card, record = (staged.folder / "README.md").read_text(), read_run_record(adapter)
    for part in (
        'license: "mit"',
        "library_name: peft",
        record.base_fingerprint,
        record.data_sha256,
        "| paraphrase | token_f1 | 0.610 | 0.550 to 0.670 | 120 |",
        "PeftModel.from_pretrained",
        "versus ask",
    ):
        assert part in card
    model = LocalModel(str(llama))
    model.add_adapter("shared", staged.folder)
    answers = FinetunedAnswerer(model.generator("shared")).answer([questions()[0].question])
    assert answers[0].data == TRAINED[0]
    merged = stage(adapter, tmp_path / "merged", name="known", merged=True)
    assert "model.safetensors" in dict(merged.files)
    assert "library_name: transformers" in (merged.folder / "README.md").read_text()
    assert 'license: "unknown"' in (merged.folder / "README.md").read_text()


def test_the_licence_is_that_of_the_bases_own_card(tmp_path: Path) -> None:
    """It is read from the YAML of the base's card; without one it is unknown."""
    (tmp_path / "config.json").write_text("{}")
    assert base_licence(str(tmp_path)) == "unknown"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# x\n")
    assert base_licence(str(tmp_path)) == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlanguage:\n" + "- en\n" * 40 + "license: 'mit'\n---\nlicense: x\n")
    assert base_licence(str(tmp_path)) == "mit"


def test_the_licence_of_a_base_from_a_hub_is_found_in_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card of a base known by its id states that base's licence; where there is none it does not claim one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--base" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--someone--base" / "refs").mkdir()
    (tmp_path / "models--someone--base" / "refs" / "main").write_text("c0ffee")
    (snapshot / "config.json").write_text("{}")
    record = RunRecord({}, "someone/base", "f" * 64, "d" * 64, ("q1",), 0, "cpu", "", "", 1.0, 1, 1.0, 1)
    silent = write_card("known", record, licence=None, merged=False)
    assert 'license: "unknown"' in silent
    assert "- The base model's licence was not found with its files; " in silent
    (snapshot / "README.md").write_text('---\nlicense: "apache-2.0"\n---\n')
    card = write_card("known", record, licence=None, merged=False)
    assert 'license: "apache-2.0"' in card
    assert "- The licence above is that of the base model's own card; " in card


@pytest.fixture
def staged_folder(tmp_path: Path) -> Path:
    """A folder to push."""
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "README.md").write_text("# A card\n")
    (tmp_path / "staged" / "adapter_config.json").write_text("{}\n")
    return tmp_path / "staged"


@contextmanager
def hub(status: int = 200) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve as much of a hub's API as a push needs; yields its address and the files that were committed."""
    received: dict[str, str] = {}

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.path.endswith("/repos/create"):
                answer: dict[str, object] = {"url": f"{address}/me/known"}
            elif "/preupload/" in self.path:
                files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
                answer = {"files": [{**file, "shouldIgnore": False} for file in files]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        received[line["value"]["path"]] = base64.b64decode(line["value"]["content"]).decode()
                answer = {"commitUrl": f"{address}/me/known/commit/1", "commitOid": "1", "hookOutput": ""}
            else:
                answer = {"errors": [], "warnings": []}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, received
    finally:
        server.shutdown()
        server.server_close()


def _staged(folder: Path) -> object:
    from finetune.export_hub import Staged

    return Staged(folder, tuple((path.name, path.stat().st_size) for path in sorted(folder.iterdir())))


def test_a_push_brings_every_file(staged_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository is created and holds the staged files, unchanged."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with hub() as (address, received):
        told = push(_staged(staged_folder), "me/known", endpoint=address)  # type: ignore[arg-type]
    assert told == f"{address}/me/known"
    assert received == {path.name: path.read_text() for path in staged_folder.iterdir()}


def test_a_push_that_fails_says_why(staged_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No OWNER/NAME, no network, a refusal and a dead host are one line each, with the mend."""
    with pytest.raises(FinetuneError, match="no OWNER/NAME"):
        push(_staged(staged_folder), "known")  # type: ignore[arg-type]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FinetuneError, match="HF_HUB_OFFLINE"):
        push(_staged(staged_folder), "me/known", endpoint="http://127.0.0.1:9")  # type: ignore[arg-type]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with hub(status=403) as (address, _), pytest.raises(FinetuneError, match=r"refused me/known .403.*hf auth login"):
        push(_staged(staged_folder), "me/known", endpoint=address)  # type: ignore[arg-type]
    with pytest.raises(FinetuneError, match="cannot be reached"):
        push(_staged(staged_folder), "me/known", endpoint="http://127.0.0.1:9")  # type: ignore[arg-type]

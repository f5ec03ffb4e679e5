"""What a run says of how it was made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from comparison_app.experiment import ArmSpec
from comparison_app.provenance import arm_settings, code_version, environment


def test_an_arm_tells_all_that_its_answers_depend_on() -> None:
    """Retrieval as fitted to the model, the embedder's weights, the generator's limits; no table without retrieval."""
    found = arm_settings(ArmSpec("r", "rag", rag={"top_k": 7}))
    assert (found["model"], found["max_new_tokens"]) == ("pocket", 64)
    rag = found["rag"]
    assert (rag["preset"], rag["top_k"], rag["chunk_words"]) == ("default", 7, 120)
    assert (rag["context_tokens"], rag["context_sentences"]) == (384, 2)
    assert rag["embedder_fingerprint"].startswith(f"{rag['embedder']}:53aa51172d142c89")
    assert "rag" not in arm_settings(ArmSpec("b", "base"))
    quotes = arm_settings(ArmSpec("q", "rag-extractive", model=None))
    assert "max_new_tokens" not in quotes
    assert quotes["rag"]["context_tokens"] is None


def test_an_endpoint_is_named_without_its_secrets() -> None:
    """User, password and query stay out of the record; prices stand in it."""
    spec = ArmSpec("e", "base", "m", endpoint="https://me:secret@host:8000/v1?key=secret", input_price=0.5)
    found = arm_settings(spec)
    assert found["endpoint"] == "https://host:8000/v1"
    assert (found["input_price"], found["output_price"]) == (0.5, None)
    assert "secret" not in str(found)


def test_machine_and_code_are_named(tmp_path: Path) -> None:
    """Processor and GPUs by name; the commit, and whether files differ from it; nothing outside a checkout."""
    found = environment()
    assert found["processor"] and found["cpus"] > 0
    assert isinstance(found["gpus"], list)
    assert code_version(tmp_path) is None
    (tmp_path / "a.txt").write_text("one")
    me = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*me, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    assert re.fullmatch("[0-9a-f]{40}", code_version(tmp_path) or "")
    (tmp_path / "a.txt").write_text("two")
    assert (code_version(tmp_path) or "").endswith(" (changed)")

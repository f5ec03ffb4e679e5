"""GGUF through llama.cpp's converter, and what Ollama is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.export_gguf import convert_to_gguf, find_converter
from finetune.export_ollama import FORMATS, chat_format, default_system, needs_gguf, rendered, write_modelfile
from finetune.models import load_tokenizer
from tests.finetune.tiny_gguf import STAND_IN, save_llama_for_gguf

REAL = os.environ.get("LLAMA_CPP")
"""A checkout of llama.cpp, where the machine has one."""

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    "m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def convertible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that llama.cpp's converter takes."""
    return save_llama_for_gguf(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the converter's place: how it is found and called is tested, not what it does."""
    script = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text(STAND_IN)
    monkeypatch.setenv("LLAMA_CPP", str(script.parent))
    return script


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="LLAMA_CPP names no llama.cpp checkout")
def test_the_real_converter_makes_a_file_of_all_weights(convertible: Path, tmp_path: Path) -> None:
    """llama.cpp's own converter turns the tiny Llama into a GGUF that holds every tensor and the template."""
    from gguf import GGUFReader

    report = convert_to_gguf(convertible, tmp_path / "out" / "tiny.gguf", kind="f16")
    assert (report.architecture, report.tensors) == ("llama", 21)
    reader = GGUFReader(str(report.file))
    assert "[INST]" in str(reader.fields["tokenizer.chat_template"].contents())
    assert sum(int(tensor.n_elements) for tensor in reader.tensors) == 125_248


def test_the_converter_is_found_called_and_checked(convertible: Path, stand_in: Path, tmp_path: Path) -> None:
    """$LLAMA_CPP names it; the file takes its name once its embeddings are the model's."""
    assert find_converter() == stand_in
    report = convert_to_gguf(convertible, tmp_path / "out" / "tiny.gguf", kind="f32")
    assert (report.architecture, report.tensors) == ("llama", 1)
    assert report.size_bytes == report.file.stat().st_size > 100_000
    assert [path.name for path in report.file.parent.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("wrong", "embeddings differ"),
        ("refuse", "OddForCausalLM is not supported"),
        ("huge", "wrote no GGUF file"),
    ],
)
def test_what_the_converter_gets_wrong_leaves_nothing(
    convertible: Path, stand_in: Path, tmp_path: Path, mark: str, said: str
) -> None:
    """Other weights than the model's, a refusal, and 8 TB of zeros, which are not read, are errors that say so."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(convertible, model)
    (model / mark).touch()
    output = tmp_path / "out" / "tiny.gguf"
    output.parent.mkdir()
    output.write_text("former")
    with pytest.raises(FinetuneError, match=said):
        convert_to_gguf(model, output, kind="f32")
    assert output.read_text() == "former"
    assert len(list(output.parent.iterdir())) == 1


def test_a_missing_converter_says_how_to_get_it(
    convertible: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the PATH nor named: the message names the mend; a wrong $LLAMA_CPP is named."""
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FinetuneError, match=r"github\.com/ggml-org/llama\.cpp and set LLAMA_CPP"):
        convert_to_gguf(convertible, tmp_path / "x.gguf")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(FinetuneError, match=r"there is no convert_hf_to_gguf\.py"):
        convert_to_gguf(convertible, tmp_path / "x.gguf")
    with pytest.raises(FinetuneError, match="no GGUF type called 'q2'"):
        convert_to_gguf(convertible, tmp_path / "x.gguf", kind="q2")


def test_an_architecture_that_llama_cpp_lacks_is_refused_first(pocket_like: Path, tmp_path: Path) -> None:
    """Pocket's architecture is named, and what to do instead, whether a converter is there or not."""
    with pytest.raises(FinetuneError, match=r"no architecture for BertGenerationDecoder.*--to merged"):
        convert_to_gguf(pocket_like, tmp_path / "x.gguf")


def test_the_modelfile_repeats_the_template(llama: Path, tmp_path: Path) -> None:
    """The prompt that Ollama builds is the prompt of the tokenizer's own template, default system message included."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    tokenizer = load_tokenizer(str(folder))
    for template, name, system in ((None, "versus", ""), (CHATML, "chatml", "Be kind."), (LLAMA_3, "llama-3", "")):
        if template is not None:
            tokenizer.chat_template = template
        known = chat_format(tokenizer)
        assert known is not None
        assert (known.name, default_system(tokenizer, known)) == (name, system)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert rendered(known.template, "Be brief.", "Why?") == prompt
    tokenizer.chat_template = CHATML
    assert write_modelfile(folder, ".", tokenizer) is not None
    lines = (folder / "Modelfile").read_text()
    assert lines.startswith("FROM .\nTEMPLATE ")
    assert 'SYSTEM """Be kind."""' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "PARAMETER num_ctx 128" in lines


def test_a_template_that_is_not_known_is_left_to_ollama(convertible: Path, tmp_path: Path) -> None:
    """A template of no family, or one that writes a prompt differently, gives no TEMPLATE line."""
    tokenizer = load_tokenizer(str(convertible))
    tokenizer.chat_template = tokenizer.chat_template.replace("[INST] ", "[INST] Please: ")
    assert chat_format(tokenizer) is None
    assert "TEMPLATE" not in "".join(
        (convertible / "Modelfile").read_text() for _ in [write_modelfile(convertible, ".", tokenizer)]
    )
    with pytest.raises(FinetuneError, match="no such file of weights"):
        write_modelfile(convertible, "model.gguf", tokenizer)
    assert not needs_gguf(convertible)
    assert len({each.name for each in FORMATS}) == len(FORMATS)

"""A model for Ollama: its weights and a Modelfile with the template it was trained on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_text
from finetune.errors import FinetuneError
from finetune.models import model_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODELFILE = "Modelfile"
IMPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM", "Phi3ForCausalLM")
"""Architectures that Ollama takes from safetensors as they are; others need a GGUF file."""


@dataclass(frozen=True)
class ChatFormat:
    """A family of chat templates: how to know it, and the same in Ollama's words."""

    name: str
    marks: tuple[str, ...]
    """All of them stand in the tokenizer's chat template, or in what it makes of a question."""
    template: str
    stops: tuple[str, ...]
    system: tuple[str, str]
    """What stands before and after a system message."""


FORMATS = (
    ChatFormat(
        "llama-3",
        ("<|start_header_id|>", "<|eot_id|>"),
        "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}"
        "{{ if .Prompt }}<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>",
        ("<|eot_id|>",),
        ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    ),
    ChatFormat(
        "chatml",
        ("<|im_start|>", "<|im_end|>"),
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
        ("<|im_end|>",),
        ("<|im_start|>system\n", "<|im_end|>"),
    ),
    ChatFormat(
        "llama-2",
        ("[INST]", "<<SYS>>"),
        "[INST] {{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] {{ .Response }} ",
        ("[INST]", "[/INST]"),
        ("<<SYS>>\n", "\n<</SYS>>"),
    ),
    ChatFormat(
        "mistral",
        ("[INST]", "[/INST]"),
        "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] {{ .Response }}",
        ("[INST]", "[/INST]"),
        ("[INST] ", "\n\n"),
    ),
    ChatFormat(
        "versus",
        ("<|user|>", "<|end|><|assistant|>"),
        "{{ if .System }}<|system|>{{ .System }}<|end|>{{ end }}{{ if .Prompt }}<|user|>{{ .Prompt }}<|end|>{{ end }}"
        "<|assistant|>{{ .Response }}<|end|>",
        ("<|end|>",),
        ("<|system|>", "<|end|>"),
    ),
)


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat | None:
    """Return the family of a tokenizer's chat template; None if it is not known, or writes a prompt differently."""
    text = f"{tokenizer.chat_template}{_prompt(tokenizer, 'Why?')}"
    known = next((each for each in FORMATS if all(mark in text for mark in each.marks)), None)
    if known is None:
        return None
    same = rendered(known.template, default_system(tokenizer, known), "Why?") == _prompt(tokenizer, "Why?")
    return known if same else None


def default_system(tokenizer: PreTrainedTokenizerBase, known: ChatFormat) -> str:
    """Return the system message that the tokenizer's template writes where none is given; mostly it is empty."""
    before, after = (re.escape(mark) for mark in known.system)
    if known.name == "mistral":
        return ""
    found = re.search(f"{before}(.*?){after}", _prompt(tokenizer, "Why?"), re.DOTALL)
    return found.group(1) if found else ""


def rendered(template: str, system: str, prompt: str) -> str:
    """Return what Ollama makes of one of the templates above: a prompt that waits for its reply."""
    text = template.partition("{{ .Response }}")[0]
    for name, value in (("System", system), ("Prompt", prompt)):
        kept = r"\1" if value else ""
        text = re.sub(r"\{\{ if \." + name + r" \}\}(.*?)\{\{ end \}\}", kept, text, flags=re.DOTALL)
        text = text.replace("{{ ." + name + " }}", value)
    return text.removesuffix(" ")


def _prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """Return a question in the tokenizer's template, without the token that llama.cpp puts in front itself."""
    messages = [{"role": "user", "content": question}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return text.removeprefix(str(tokenizer.bos_token or "")).removesuffix(" ")


def needs_gguf(model: Path) -> bool:
    """Tell whether Ollama takes the model in folder `model` as a GGUF file only."""
    names = json.loads((model / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    return not set(names) & set(IMPORTED)


def write_modelfile(
    model: Path, weights: str, tokenizer: PreTrainedTokenizerBase, *, max_new_tokens: int = 256
) -> ChatFormat | None:
    """Write the Modelfile of the model in folder `model` beside its weights, and return its template's family.

    `weights` is what follows FROM: `.` for the folder's safetensors, or the name of a GGUF file in it. Where the
    tokenizer's template is of no known family, Ollama's own recognition has the say.
    """
    if weights != "." and not (model / weights).is_file():
        raise FinetuneError(f"{model / weights}: there is no such file of weights")
    known = chat_format(tokenizer)
    lines = [f"FROM ./{weights}" if weights != "." else "FROM ."]
    if known is not None:
        lines += [f'TEMPLATE """{known.template}"""', *(f'PARAMETER stop "{stop}"' for stop in known.stops)]
        system = default_system(tokenizer, known)
        lines += [f'SYSTEM """{system}"""'] if system else []
    lines += [
        "PARAMETER temperature 0",
        f"PARAMETER num_ctx {min(model_context(str(model)), 8192)}",
        f"PARAMETER num_predict {max_new_tokens}",
    ]
    write_text(model / MODELFILE, "\n".join(lines) + "\n")
    return known

"""Questions as chat messages in files that trl, LLaMA-Factory and Axolotl train on.

| format | one line | beside it |
|---|---|---|
| trl | `{"prompt": [messages], "completion": [message]}`: loss on the completion alone | – |
| llama-factory | `{"messages": [messages]}`: the OpenAI form of its `sharegpt` formatting | `dataset_info.json` |
| axolotl | `{"messages": [messages]}` for `type: chat_template` | `axolotl.yaml` |

Messages are `{"role": "system" or "user" or "assistant", "content": str}`, in the words that Versus itself trains and
asks in (`conversations`). A question without answers is answered with the refusal of the corpus's language.
trl's own loader and check are run on its files in the tests; those of the other two keep to their documentation.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from data_prep.conversations import closed_book, refusal, with_context
from data_prep.corpus import Corpus, title_of
from data_prep.errors import DataError
from data_prep.questions import Question
from data_prep.sections import Section, sections
from data_prep.support import stems

FORMATS = ("trl", "llama-factory", "axolotl")
PASSAGE_CHARACTERS = 1_200


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What is written: the format, the splits, and how many passages a prompt holds.

    With `passages` 0 questions are asked closed-book. Else the prompt holds the section of the evidence and distractors
    from other documents that share most words with the question, in seeded order; for a question without answers,
    distractors alone.
    """

    format: str = "trl"
    splits: tuple[str, ...] = ("train", "dev")
    passages: int = 0
    cite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [] if self.format in FORMATS else [f"format {self.format!r} is not one of {', '.join(FORMATS)}"]
        wrong += [f"split {name!r} is not train, dev or test" for name in self.splits if name not in _SPLITS]
        wrong += ["passages is negative"] if self.passages < 0 else []
        if wrong:
            raise DataError("export: " + "; ".join(wrong))


_SPLITS = ("train", "dev", "test")


def export_questions(corpus: Corpus, folder: Path, config: ExportConfig | None = None) -> dict[str, int]:
    """Write the corpus's questions into `folder`; return the rows of each file.

    Raises `DataError` if the corpus has no questions of the splits asked for.
    """
    config = config or ExportConfig()
    passages = PassagePicker(corpus, config).passages if config.passages else None
    written = {}
    for split in config.splits:
        questions = corpus.questions(split)
        if questions:
            rows = [training_row(question, config, corpus.language, passages) for question in questions]
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(folder / f"{split}.jsonl", lines)
            written[f"{split}.jsonl"] = len(rows)
    if not written:
        raise DataError(f"corpus {corpus.name} has no questions in {', '.join(config.splits)}; import or draft some")
    _write_settings(folder, corpus.name, list(written), config)
    return written


def training_row(
    question: Question, config: ExportConfig, language: str, passages: Callable[[Question], Sequence[str]] | None = None
) -> dict[str, Any]:
    """Return one question as a row of `config.format`."""
    asked = (
        closed_book(question.question)
        if passages is None
        else with_context(question.question, passages(question), language=language, cite=config.cite)
    )
    prompt = [{"role": message.role.value, "content": message.text or ""} for message in asked]
    answer = question.answers[0] if question.answers else refusal(language)
    reply = {"role": "assistant", "content": answer}
    if config.format == "trl":
        return {"prompt": prompt, "completion": [reply]}
    return {"messages": [*prompt, reply]}


def _write_settings(folder: Path, name: str, files: Sequence[str], config: ExportConfig) -> None:
    """Write what the trainer wants to know of the files."""
    if config.format == "llama-factory":
        entries = {f"{name}-{file.removesuffix('.jsonl')}": _llama_factory_entry(file) for file in files}
        write_text(folder / "dataset_info.json", json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    if config.format == "axolotl":
        lines = ["# Merge into an Axolotl configuration; paths are relative to where it is started."]
        for key, file in (("datasets", "train.jsonl"), ("test_datasets", "dev.jsonl")):
            if file in files:
                lines += [f"{key}:", *_axolotl_entry(file, split_line=key == "test_datasets")]
        write_text(folder / "axolotl.yaml", "\n".join(lines) + "\n")


def _llama_factory_entry(file: str) -> dict[str, Any]:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    return {
        "file_name": file,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**tags, "assistant_tag": "assistant", "system_tag": "system"},
    }


def _axolotl_entry(file: str, *, split_line: bool) -> list[str]:
    return [
        f"  - path: {file}",
        "    ds_type: json",
        *(["    split: train"] if split_line else []),
        "    type: chat_template",
        "    field_messages: messages",
        "    message_property_mappings:",
        "      role: role",
        "      content: content",
        '    roles_to_train: ["assistant"]',
    ]


class PassagePicker:
    """Chooses the passages that a question's prompt holds, the gold one among distractors."""

    def __init__(self, corpus: Corpus, config: ExportConfig) -> None:
        self._count, self._seed, self._language = config.passages, config.seed, corpus.language
        self._texts = corpus.texts(include_new=True)
        self._titles = {name: title_of(text, name) for name, text in self._texts.items()}
        self._sections = [section for name, text in self._texts.items() for section in sections(name, text)]
        self._words = [stems(section.text(self._texts[section.document]), self._language) for section in self._sections]

    def passages(self, question: Question) -> list[str]:
        """Return the passages of one prompt, in an order that depends on the seed and the question alone."""
        gold = self._gold(question)
        documents = {section.document for section, _ in gold} | ({question.about} if question.about else set())
        wanted = stems(question.question, self._language)
        others = [place for place, section in enumerate(self._sections) if section.document not in documents]
        nearest = sorted(others, key=lambda place: -len(wanted & self._words[place]))
        distractors = [(self._sections[place], None) for place in nearest[: max(0, self._count - len(gold))]]
        chosen = [self._passage(section, at) for section, at in [*gold[: self._count], *distractors]]
        random.Random(f"{self._seed}:{question.id}").shuffle(chosen)
        return chosen

    def _gold(self, question: Question) -> list[tuple[Section, int | None]]:
        """Return the sections that hold the evidence, each with the place of the evidence in the document."""
        found: dict[tuple[str, int], tuple[Section, int | None]] = {}
        for item in question.evidence:
            at = item.start or 0
            for section in self._sections:
                if section.document == item.document and section.start <= at < section.end:
                    found.setdefault((section.document, section.start), (section, at))
        return list(found.values())

    def _passage(self, section: Section, at: int | None) -> str:
        """Return a section's text under its title, cut around the evidence where it is long."""
        text = self._texts[section.document]
        start = section.start if at is None else max(section.start, at - PASSAGE_CHARACTERS // 3)
        if section.end - section.start <= PASSAGE_CHARACTERS:
            start = section.start
        path = " › ".join((self._titles[section.document], *section.headings[1:]))
        return f"{path}\n{text[start : min(section.end, start + PASSAGE_CHARACTERS)].strip()}"

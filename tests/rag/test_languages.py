"""The warning that documents are in a language the embedder was not trained for."""

from __future__ import annotations

from pathlib import Path

import pytest
from haystack import Document

from rag.config import BUNDLED_EMBEDDER
from rag.languages import language_warning, trained_languages

RUSSIAN = "Давление в шинах проверяют раз в месяц на холодных колёсах. Гайки затягивают моментом 120 Нм. " * 4
ENGLISH = "Check the tyre pressure once a month, when the tyres are cold. Tighten the nuts to 120 Nm. " * 4


def _documents(*texts: str) -> list[Document]:
    return [Document(id=str(number), content=text) for number, text in enumerate(texts)]


def test_documents_in_another_language_are_warned_of() -> None:
    """Told from the text, not from the label; the sentence names the language and what to do."""
    warning = language_warning(_documents(RUSSIAN, ENGLISH, RUSSIAN), BUNDLED_EMBEDDER)
    assert warning is not None
    assert "2 are not in a language" in warning
    assert "'ru'" in warning
    assert "multilingual" in warning


@pytest.mark.parametrize(
    ("texts", "model"),
    [
        ([ENGLISH] * 3, BUNDLED_EMBEDDER),
        ([ENGLISH] * 19 + [RUSSIAN], BUNDLED_EMBEDDER),
        (["шина"] * 3, BUNDLED_EMBEDDER),
        ([RUSSIAN], "intfloat/multilingual-e5-small"),
        ([RUSSIAN], "somebody/unheard-of"),
        ([], BUNDLED_EMBEDDER),
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(texts: list[str], model: str) -> None:
    """The right language, a stray document, too little text, a model of many languages or an unknown one."""
    assert language_warning(_documents(*texts), model) is None


@pytest.mark.parametrize(
    ("model", "languages"),
    [
        ("BAAI/bge-small-en-v1.5", {"en"}),
        ("intfloat/e5-base-v2", {"en"}),
        ("BAAI/bge-m3", None),
        ("cointegrated/rubert-tiny2", {"ru", "en"}),
    ],
)
def test_languages_by_a_models_name(model: str, languages: set[str] | None) -> None:
    """Published models are known by name."""
    assert trained_languages(model) == languages


@pytest.mark.parametrize(("card", "languages"), [("language: ru", {"ru"}), ("language:\n- de\n- fr", {"de", "fr"})])
def test_a_local_models_card_is_believed(tmp_path: Path, card: str, languages: set[str]) -> None:
    """The card in the folder stands above the folder's name."""
    folder = tmp_path / "all-minilm"
    folder.mkdir()
    (folder / "README.md").write_text(f"---\nlicense: mit\n{card}\ntags: [x]\n---\n# Model\n")
    assert trained_languages(str(folder)) == languages

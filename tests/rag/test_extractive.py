"""Quoted answers: what is quoted, and where it stands."""

from __future__ import annotations

import pytest
from haystack import Document

from rag.chunking import chunk_document
from rag.config import RagConfig
from rag.embedding import Embedder
from rag.extractive import ExtractiveGenerator, plain_text, quotes_of
from rag.markdown import count_words
from tests.rag.conftest import MANUAL, manual_documents


def _chunks(document: int) -> list[Document]:
    return chunk_document(manual_documents()[document], RagConfig())


@pytest.mark.parametrize(
    ("document", "question", "expected"),
    [
        (0, "What is the front tyre pressure when fully loaded?", "Fully loaded — Front: 2.7 bar, Rear: 3.1 bar."),
        (0, "To what torque are the wheel nuts tightened?", "Tighten the wheel nuts to 120 Nm"),
        (1, "How long does a full charge take?", "A full charge takes 9 hours"),
        (1, "What does alert CHG-B204 mean?", "Alert CHG-B204 means that the cable is not locked."),
        (2, "How do I defrost the windscreen?", "Press the snowflake button to defrost the windscreen."),
    ],
)
def test_the_sentence_or_row_that_answers_is_quoted(
    embedder: Embedder, document: int, question: str, expected: str
) -> None:
    """With and without an embedder the answer opens with the fitting quote."""
    for generator in (ExtractiveGenerator(embedder), ExtractiveGenerator()):
        answer = generator.answer(question, _chunks(document))
        assert expected in answer.text
        assert 0 < answer.confidence <= 1
        assert count_words(answer.text) <= 45


def test_spans_are_exact(embedder: Embedder) -> None:
    """Each span, cut from the document and stripped of markup, is what was quoted."""
    generator = ExtractiveGenerator(embedder)
    for number, (name, (_, text)) in enumerate(MANUAL.items()):
        answer = generator.answer("How do I change, charge or heat it?", _chunks(number))
        assert answer.spans
        for document, start, end in answer.spans:
            assert document == name
            quoted = plain_text(text[start:end])
            assert quoted
            assert quoted.rstrip(".") in answer.text


def test_asked_for_steps_it_quotes_the_whole_procedure() -> None:
    """The steps of a short list are quoted together, in order."""
    text = ExtractiveGenerator().answer("How do I change a wheel and switch on the hazard lights?", _chunks(0)).text
    places = [text.find(part) for part in ("Park on level ground", "Loosen the five", "Raise the car")]
    assert places == sorted(places)
    assert min(places) >= 0


def test_every_quote_of_a_chunk_is_a_span_of_its_document() -> None:
    """Quotes name document offsets, not chunk offsets."""
    for number, (_, text) in enumerate(MANUAL.values()):
        for chunk in _chunks(number):
            for quote in quotes_of(chunk):
                raw = text[quote.start : quote.end]
                assert raw == raw.strip() != ""
                assert quote.words == count_words(quote.text) > 0


def test_a_row_cut_from_its_table_is_read_with_the_header() -> None:
    """A chunk that begins inside a table names the columns all the same."""
    rows = "\n".join(f"| part {n} | {n} Nm |" for n in range(150))
    document = Document(id="t", content=f"| part | torque |\n|---|---|\n{rows}")
    chunks = chunk_document(document, RagConfig())
    answer = ExtractiveGenerator().answer("What is the torque of part 149?", chunks[-1:])
    assert answer.text == "part 149 — torque: 149 Nm."


def test_markup_is_left_out_of_the_text() -> None:
    """Links, emphasis, code marks and list marks go; words and snake_case stay."""
    raw = "- Set **`max_pods`** to [ten](http://a.b), *not* 2 * 5 ![x](y.png)"
    assert plain_text(raw) == "Set max_pods to ten, not 2 * 5"


def test_nothing_to_quote_is_an_empty_answer() -> None:
    """Without chunks, or with chunks without words, there is no text and no confidence."""
    for chunks in ([], [Document(id="x", content="---")]):
        answer = ExtractiveGenerator().answer("What?", chunks)
        assert (answer.text, answer.spans, answer.confidence) == ("", [], 0.0)


def test_a_batch_answers_as_one_by_one(embedder: Embedder) -> None:
    """Answers do not depend on what else is asked."""
    generator = ExtractiveGenerator(embedder)
    questions = ["How long does a charge take?", "What torque do wheel nuts need?", "?"]
    chunks = [_chunks(1), _chunks(0), []]
    together = generator.answer_many(questions, chunks)
    assert [a.text for a in together] == [generator.answer(q, c).text for q, c in zip(questions, chunks, strict=True)]

"""Chunks are exact spans that follow the structure of markdown."""

from __future__ import annotations

from itertools import pairwise

from haystack import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.chunking import chunk_document
from rag.config import RagConfig
from rag.markdown import count_words, scan_blocks
from tests.rag.conftest import manual_documents

_LINES = st.sampled_from(
    [
        "# Title",
        "## Part *two*",
        "###### ",
        "Setext",
        "======",
        "---",
        "- item one",
        "  continued",
        "3) third",
        "| a | b |",
        "|---|---|",
        "```python",
        "~~~",
        "A sentence. Another one! A third, e.g. this; 3.5 bar?",
        "слово за словом. Ещё одно.",
        "\t",
        "",
        "\u2028x\u00a0y",
        "word " * 40,
        "😀 [link](http://a.b) **bold**",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(st.lists(_LINES, max_size=40).map("\n".join), st.text(max_size=400)),
    words=st.integers(10, 60),
    overlap=st.integers(0, 9),
    chunking=st.sampled_from(["markdown", "words"]),
)
def test_chunks_are_exact_spans_and_cover_all_text(text: str, words: int, overlap: int, chunking: str) -> None:
    """Whatever the text, each chunk is the slice its offsets name, and every visible character is in some chunk."""
    config = RagConfig(chunk_words=words, overlap_words=overlap, chunking=chunking)
    chunks = chunk_document(Document(id="d", content=text), config)
    covered: set[int] = set()
    for chunk in chunks:
        start, end = chunk.meta["start"], chunk.meta["end"]
        assert chunk.content == text[start:end]
        assert chunk.id == f"d#{start}-{end}"
        covered.update(range(start, end))
    assert all(position in covered or character.isspace() for position, character in enumerate(text))
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_sections_give_the_heading_path() -> None:
    """A chunk's section is the path of headings above it, without the title of the document itself."""
    chunks = chunk_document(manual_documents()[0], RagConfig())
    sections = {chunk.meta["section"]: chunk.content for chunk in chunks}
    assert "120 Nm" in (sections["Changing a wheel"] or "")


def test_a_deeper_heading_ends_with_its_parent() -> None:
    """A heading of a higher level closes the sections below the old one."""
    filler = "Some words stand here so that this part is long enough to be a chunk on its own. " * 3
    text = f"# A\n\n## B\n\n### C\n\n{filler}\n\n## D\n\n{filler}"
    chunks = chunk_document(Document(id="x", content=text), RagConfig())
    assert [chunk.meta["section"] for chunk in chunks] == ["A › B › C", "A › D"]


def test_a_table_that_fits_is_not_torn() -> None:
    """A table of fewer words than a chunk and a half lies in one chunk."""
    table = "| name | value |\n|---|---|\n" + "\n".join(f"| row {n} | {n} bar |" for n in range(30))
    text = "Words before. " * 40 + "\n\n" + table
    chunks = chunk_document(Document(id="x", content=text), RagConfig(overlap_words=0))
    assert any(table in (chunk.content or "") for chunk in chunks)


def test_a_long_table_is_cut_between_rows_and_keeps_its_header_in_meta() -> None:
    """Every chunk of a long table begins with a whole row; the later ones name the header."""
    rows = [f"| part {n} | torque {n} Nm | size {n} mm |" for n in range(200)]
    text = "| part | torque | size |\n|---|---|---|\n" + "\n".join(rows)
    chunks = chunk_document(Document(id="x", content=text), RagConfig())
    assert len(chunks) > 5
    for chunk in chunks[1:]:
        assert chunk.meta["table_header"] == "| part | torque | size |"
        assert all(line in rows for line in (chunk.content or "").split("\n"))


def test_long_lists_and_code_are_cut_between_items_and_lines() -> None:
    """Each chunk of a long list holds whole items; each chunk of long code whole lines."""
    items = [f"- item {n} says what to do when light {n} is on" for n in range(60)]
    code = [f"command --option {n} value-{n}" for n in range(90)]
    text = "\n".join(items) + "\n\n```\n" + "\n".join(code) + "\n```"
    chunks = chunk_document(Document(id="x", content=text), RagConfig(overlap_words=0))
    lines = [line for chunk in chunks for line in (chunk.content or "").split("\n") if line]
    assert set(lines) == {*items, *code, "```"}


def test_overlap_repeats_whole_sentences_of_the_same_section() -> None:
    """A chunk that continues a section begins with at most `overlap_words` words of the one before."""
    text = " ".join(f"Sentence number {n} tells one more thing." for n in range(80))
    chunks = chunk_document(Document(id="x", content=text), RagConfig(overlap_words=20))
    for before, chunk in pairwise(chunks):
        shared = before.meta["end"] - chunk.meta["start"]
        assert 0 < count_words(text[chunk.meta["start"] : before.meta["end"]]) <= 20, shared
        assert (chunk.content or "").startswith("Sentence number")


def test_no_chunk_is_longer_than_a_chunk_and_a_half() -> None:
    """Even one endless sentence is cut."""
    chunks = chunk_document(Document(id="x", content="word " * 5000), RagConfig(overlap_words=0))
    assert max(count_words(chunk.content or "") for chunk in chunks) <= 180


def test_headings_inside_code_are_code() -> None:
    """A line that looks like a heading inside a fence does not begin a section."""
    blocks = scan_blocks("# Real\n\n```sh\n# not a heading\n```\n\ntext")
    assert [block.kind for block in blocks] == ["heading", "code", "paragraph"]


def test_an_empty_document_has_no_chunks() -> None:
    """White space alone gives nothing."""
    assert chunk_document(Document(id="x", content=" \n\t\n"), RagConfig()) == []

"""Questions without a model: definitions, tables and headings turned into questions by rule.

The lesser way, for where no model is at hand. The rules ask for what a sentence or row says on its face, in one or two
fixed forms, in English or Russian; they miss most of what a document holds, their wordings are stiff, and they write no
near-misses: the unanswerable questions are general ones that no manual answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from data_prep.checks import content_words
from data_prep.corpus import title_of
from data_prep.drafts import Draft, draft_id
from data_prep.questions import Evidence
from data_prep.sections import Section, sections
from data_prep.support import sentence_spans

ORIGIN = "rules"
MAX_ANSWER_WORDS = 45
MAX_TABLE_ROWS = 12


@dataclass(frozen=True, slots=True)
class _Forms:
    """The fixed question forms of one language; the second of each pair is the paraphrase."""

    definition: tuple[str, str]
    heading: tuple[str, str]
    how: tuple[str, str]
    row: tuple[str, str]
    verb: re.Pattern[str]
    how_to: re.Pattern[str]
    off_topic: tuple[str, ...]


_FORMS = {
    "en": _Forms(
        definition=("What is {term}?", "What does the term {term} mean?"),
        heading=("What does {title} say under “{heading}”?", "What should I know about “{heading}” ({title})?"),
        how=("How do I {task} ({title})?", "What are the steps to {task}, according to {title}?"),
        row=("What does {title} give as “{column}” for “{row}”?", "Which “{column}” has “{row}” in {title}?"),
        verb=re.compile(
            r"^(?:The |An? )?(?P<term>[A-Z\w][\w\-/]*(?: [\w\-/]+){0,4}?) (?:is|are|means|refers to|stands for) "
            r"(?:an? |the |any |used |what )"
        ),
        how_to=re.compile(r"^(?:How to|To) (?P<task>[a-z].+)$", re.IGNORECASE),
        off_topic=(
            "Who painted the Mona Lisa?",
            "How long do I boil an egg until it is hard?",
            "What is the capital of Mongolia?",
            "Who won the football world cup of 1998?",
            "How many strings does a cello have?",
            "In which year did the Berlin wall fall?",
            "What is a haiku?",
            "Which planet has the most moons?",
            "How do I prune an apple tree?",
            "What do penguins eat?",
            "Who wrote War and Peace?",
            "How is sourdough bread made?",
            "What is the speed of sound in air?",
            "Which language is spoken in Brazil?",
            "How old do giant tortoises get?",
        ),
    ),
    "ru": _Forms(
        definition=("Что такое {term}?", "Что означает термин {term}?"),
        heading=("Что говорится в документе «{title}» в разделе «{heading}»?", "Что нужно знать: {heading} ({title})?"),
        how=("Как {task} ({title})?", "Какие шаги нужны, чтобы {task} ({title})?"),
        row=("Какое значение «{column}» у «{row}» ({title})?", "Что в «{title}» указано для {row}, {column}?"),
        verb=re.compile(r"^(?P<term>[А-ЯЁ\w][\w\-/]*(?: [\w\-/]+){0,4}?) (?:—|–|- это|это|является|означает) "),
        how_to=re.compile(r"^Как (?P<task>[а-яё].+)$"),
        off_topic=(
            "Кто написал «Войну и мир»?",
            "Сколько минут варить яйцо вкрутую?",
            "Какая столица у Монголии?",
            "Кто выиграл чемпионат мира по футболу в 1998 году?",
            "Сколько струн у виолончели?",
            "В каком году пала Берлинская стена?",
            "Чем питаются пингвины?",
            "У какой планеты больше всего спутников?",
            "Как обрезать яблоню?",
            "На каком языке говорят в Бразилии?",
        ),
    ),
}  # fmt: skip

_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"(?:^\|.*\|[ \t]*\n?){3,}", re.MULTILINE)
_TERM_ENTRY = re.compile(
    r"^(?:[-*] )?(?:\*\*(?P<term>[^*\n]{2,60}?):\*\*|\*\*(?P<other>[^*\n]{2,60}?)\*\*\s*[:–—-])\s+"
    r"(?P<text>\S[^\n]{15,400})$",
    re.MULTILINE,
)
_MARKS = re.compile(r"\*\*|`|^[-*]\s+|(?<=\s)[-*]\s+(?=\S)")
_LINKED = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_OPENING = re.compile(r"\A(?:[ \t]*#{1,6}[^\n]*\n|\s+)+")
_NO_TERMS = "it its their this that these those they he she there one none what which some most each"
_NO_TERMS_RU = "это этот эта эти он она оно они его её их"
_PRONOUNS = frozenset(f"{_NO_TERMS} {_NO_TERMS_RU}".split())


def draft_by_rules(documents: Mapping[str, str], language: str = "en") -> list[Draft]:
    """Turn definitions, table rows and headings of `documents` (id -> markdown) into drafts, evidence included.

    In a language without rules, nothing but headings that are questions already is found.
    """
    forms = _FORMS.get(language)
    drafts: list[Draft] = []
    for name, text in documents.items():
        title = title_of(text, name)
        for section in sections(name, text):
            drafts += _of_section(section, text, title, forms)
    if forms is not None and drafts:
        drafts += _off_topic(forms, documents)
    return list({draft.id: draft for draft in drafts}.values())


def _of_section(section: Section, text: str, title: str, forms: _Forms | None) -> Iterator[Draft]:
    if forms is not None:
        yield from _definitions(section, text, title, forms)
        yield from _table_rows(section, text, title, forms)
    yield from _heading(section, text, title, forms)


def _definitions(section: Section, text: str, title: str, forms: _Forms) -> Iterator[Draft]:
    body = _CODE.sub(lambda code: " " * len(code.group()), section.text(text))
    for entry in _TERM_ENTRY.finditer(body):
        term = (entry.group("term") or entry.group("other")).strip(" .:")
        questions = tuple(form.format(heading=term, title=title) for form in forms.heading)
        yield _draft(section, text, questions, entry.span("text"), "entry")
    for start, end in sentence_spans(body):
        sentence = body[start:end]
        found = forms.verb.match(sentence)
        if found and len(sentence.split()) <= MAX_ANSWER_WORDS and _is_term(found.group("term")):
            term = _uncapitalised(found.group("term").strip())
            questions = tuple(form.format(term=term) for form in forms.definition)
            yield _draft(section, text, questions, (start, end), "definition")


def _is_term(term: str) -> bool:
    return term.split()[0].casefold() not in _PRONOUNS and bool(content_words(term))


def _table_rows(section: Section, text: str, title: str, forms: _Forms) -> Iterator[Draft]:
    body = section.text(text)
    for table in _TABLE.finditer(body):
        position, lines = table.start(), table.group().splitlines(keepends=True)
        header = _cells(lines[0])
        for place, line in enumerate(lines):
            cells = _cells(line)
            if (
                2 <= place < MAX_TABLE_ROWS + 2
                and len(cells) == len(header) >= 2
                and cells[1]
                and header[1]
                and _is_row(cells[0])
            ):
                values = {"column": _uncapitalised(header[1]), "row": cells[0], "title": title}
                questions = tuple(form.format(**values) for form in forms.row)
                yield _draft(section, text, questions, (position, position + len(line.rstrip())), "table", cells[1])
            position += len(line)


def _heading(section: Section, text: str, title: str, forms: _Forms | None) -> Iterator[Draft]:
    """Ask for a heading's first paragraph: as it stands if it is a question, else in a fixed form."""
    if not section.headings:
        return
    heading = section.headings[-1]
    found = _OPENING.match(section.text(text))
    first = found.end() if found else 0
    paragraph = section.text(text)[first:].split("\n\n")[0].rstrip()
    if not 5 <= len(paragraph.split()) <= MAX_ANSWER_WORDS or paragraph.startswith(("|", "```", "!", "~~~")):
        return
    if paragraph.endswith((":", ",")):  # what it leads up to comes after it
        return
    span = (first, first + len(paragraph))
    if heading.endswith("?"):
        yield _draft(section, text, (heading,), span, "heading")
    elif forms is not None and heading != title and content_words(heading):
        task = forms.how_to.match(heading)
        chosen = forms.how if task else forms.heading
        values = {"task": task.group("task") if task else "", "heading": heading, "title": title}
        yield _draft(section, text, tuple(form.format(**values) for form in chosen), span, "heading")


def _draft(
    section: Section,
    text: str,
    questions: tuple[str, ...],
    span: tuple[int, int],
    category: str,
    answer: str | None = None,
) -> Draft:
    start, end = section.start + span[0], section.start + span[1]
    quote = text[start:end]
    return Draft(
        id=draft_id(section.document, quote, questions[0]),
        document=section.document,
        wordings=questions[:1],
        section=section.path,
        paraphrases=questions[1:],
        answers=(_plain(answer or quote),),
        quote=quote,
        evidence=(Evidence(section.document, start, end),),
        located="exact",
        category=category,
        origin=ORIGIN,
    )


def _off_topic(forms: _Forms, documents: Mapping[str, str]) -> Iterator[Draft]:
    """Yield the general questions whose words do not all stand in one document."""
    vocabularies = [content_words(text) for text in documents.values()]
    for question in forms.off_topic:
        if not any(content_words(question) <= words for words in vocabularies):
            yield Draft(draft_id("off-topic", question), "", (question,), category="off-topic", origin=ORIGIN)


def _plain(markdown: str) -> str:
    """Return a stretch of markdown as one line of words, without its marks."""
    return " ".join(_MARKS.sub("", _LINKED.sub(r"\1", markdown)).split())


def _is_row(cell: str) -> bool:
    """Tell whether a table's first cell says of itself what the row is about: a word, not a bare number."""
    return any(word.isalpha() and len(word) > 2 for word in content_words(cell))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _uncapitalised(text: str) -> str:
    """Write the first letter small, unless the word is a name or an abbreviation by its other letters."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text

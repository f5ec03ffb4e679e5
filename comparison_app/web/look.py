"""How things look: one style sheet, and answers, sources, listings and tables as HTML in which all text is escaped.

Streamlit cleans the HTML once more in the browser; no script of a document, an answer or a question ever runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from markupsafe import Markup, escape

from comparison_app.asking import Column
from comparison_app.kinds import CLOSED_BOOK
from comparison_app.leaderboard import MOST_NEEDED, Standing
from comparison_app.passages import Passage, Picture, clipped
from comparison_app.predictions import RetrievedSpan
from data_prep.listings import Listing

LABELS = {
    "rag-extractive": "Quoted",
    "rag": "RAG",
    "finetuned": "Fine-tuned",
    "finetuned-rag": "Fine-tuned + RAG",
    "raft": "RAFT",
    "base": "Base model",
}
EXPLAINED = {
    "rag-extractive": "sentences of the documents, word for word; no model writes",
    "rag": "the base model reads what retrieval finds",
    "finetuned": "an adapter answers from memory",
    "finetuned-rag": "the adapter reads what retrieval finds",
    "raft": "an adapter trained to read retrieved passages",
    "base": "the base model answers from memory",
}
COLOURS = ("#2f6fde", "#d9622b", "#1f9d7a", "#a04fd0", "#c2912e", "#c73e6b", "#4c8f2f", "#5b6b8c")

FAILED = "failed-click"
"""Where in the session a callback leaves why it failed."""

STYLE = Path(__file__).with_name("style.css")


def count(number: int, thing: str) -> str:
    """Return a number with what it counts, in the plural but for one."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def label(arm: str) -> str:
    """Return an arm's name as people read it."""
    return LABELS.get(arm, arm)


def colour(arm: str, arms: Sequence[str]) -> str:
    """Return an arm's colour; the same arm has the same colour on every page."""
    known = list(LABELS)
    place = known.index(arm) if arm in known else len(known) + (list(arms).index(arm) if arm in arms else 0)
    return COLOURS[place % len(COLOURS)]


def page_title(title: str, line: str) -> None:
    """Show a page's title and, in one line, what it is for; below it why the last click failed, if it did."""
    st.title(title, anchor=False)
    html(Markup('<p class="v-line">{}</p>').format(line))
    failed = st.session_state.pop(FAILED, None)
    if failed:
        mend(failed)


def empty(title: str, *lines: str) -> None:
    """Show an empty state that says what would stand here and how to get it; `code` in backticks."""
    body = Markup("").join(Markup("<p>{}</p>").format(_with_code(line)) for line in lines)
    html(Markup('<div class="v-empty"><h3>{}</h3>{}</div>').format(title, body))


def plain(text: object) -> str:
    """Return text for a place where Streamlit reads markdown (labels, captions, notes): it shows as it is written.

    Nothing in it becomes a picture, a link, a formula, a colour, code or HTML; its line ends stay. Bare addresses,
    which no backslash keeps from becoming links, get a word joiner, which nobody sees.
    """
    text = re.sub(r"(?i)(https?:)(?=//)|(www)(?=\.)|(@)(?=[-\w])", "\\g<0>\N{WORD JOINER}", str(text))
    lines = (re.sub(r"([\\`*_\[\]<>&$~:#|])", r"\\\1", " ".join(line.split())) for line in text.splitlines())
    return "  \n".join(re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line) for line in lines if line)


def mend(error: object) -> None:
    """Show what is wrong and how to mend it."""
    st.error(plain(error), icon=":material/build:")


def warn(error: object) -> None:
    """Show why something was not done, as a sentence."""
    text = str(error)
    st.warning(plain(f"{text[:1].upper()}{text[1:]}."))


def html(body: Markup) -> None:
    """Put HTML on the page; only `Markup`, in which text was escaped, is taken."""
    if not isinstance(body, Markup):
        raise TypeError("HTML for the page must be Markup, in which text is escaped")
    st.html(str(body))


def answer(
    column: Column,
    sources: Sequence[Passage],
    *,
    title: str,
    note: str = "",
    charge: str = "",
    shade: str = "#888",
    plain: bool = False,
) -> Markup:
    """Return one arm's card. `plain`: without seconds, tokens, charge and sources, as in a blind vote."""
    head = Markup("<h3>{} <small>{}</small></h3>").format(title, note)
    parts = [head, _said(column, masked=plain)]
    if not plain and column.prediction is not None:
        parts += [_facts(column, charge), *(_source(number, item) for number, item in enumerate(sources, start=1))]
        parts.append(_rest(column.prediction.documents[len(sources) :] if sources else ()))
    return Markup('<article class="v-card" style="--arm:{}">{}</article>').format(shade, Markup("").join(parts))


def _said(column: Column, *, masked: bool) -> Markup:
    """Return what was said so far. `masked`: nothing that tells who said it, so neither marks nor why it failed."""
    made = column.prediction
    if made is not None and made.error:
        if masked:
            return Markup('<div class="v-note bad" role="alert"><b>No answer.</b></div>')
        return Markup('<div class="v-note bad" role="alert"><b>No answer:</b> {}</div>').format(made.error[:600])
    if column.state == "waiting":
        lines = Markup("").join(Markup('<div class="v-wait" style="width:{}%"></div>').format(w) for w in (92, 78, 45))
        return Markup('<div aria-label="waiting for the first word">{}</div>').format(lines)
    stopped = Markup('<div class="v-note">Stopped here.</div>') if column.state == "stopped" else Markup("")
    declined = Markup("")
    if made is not None and made.abstained:
        declined = Markup('<div class="v-note"><b>Declined:</b> it finds no answer.</div>')
    kind = " caret" if column.state == "writing" else ""
    pieces = made.pieces if made is not None and not masked else [(column.text.strip(), False)]
    said = _marked(clipped(pieces, 20_000))
    text = Markup('<div class="v-answer{}" dir="auto">{}</div>').format(kind, said)
    return Markup("{}{}{}").format(declined, text, stopped)


def _marked(pieces: Sequence[tuple[str, bool]]) -> Markup:
    """Return an answer with the sentences marked that no source carries."""
    mark = Markup(
        '<span class="v-unsupported" title="nothing that was retrieved says this">{}<small> {}</small></span>'
    )
    return Markup("").join(
        mark.format(text, "not in the sources") if unsupported else escape(text) for text, unsupported in pieces
    )


def _facts(column: Column, charge: str) -> Markup:
    made = column.prediction
    assert made is not None
    told = [f"{made.seconds:.2f} s"]
    if made.seconds_to_first_token is not None and made.seconds - made.seconds_to_first_token > 0.05:
        told.append(f"first word {made.seconds_to_first_token:.2f} s")
    if made.completion_tokens is not None:
        told.append(f"{made.prompt_tokens or 0} + {made.completion_tokens} tokens")
    if charge and not made.error:
        told.append(charge)
    return Markup('<p class="v-facts">{}</p>').format(" · ".join(told))


def _source(number: int, item: Passage) -> Markup:
    pieces = Markup("").join(
        Markup("<mark>{}</mark>").format(flowing(text)) if marked else flowing(text) for text, marked in item.pieces
    )
    link = Markup("")
    if item.link:
        link = Markup(' · <a href="{}" target="_blank" rel="noopener noreferrer">open the page</a>').format(item.link)
    pictures = Markup("").join(_picture(picture) for picture in item.pictures)
    where = item.where + (" · marked" if any(marked for _, marked in item.pieces) else "")
    return Markup(
        '<details><summary>[{}] {}</summary><div class="v-passage" dir="auto">{}</div>{}'
        '<p class="v-facts">{}, characters {}–{} · score {}{}</p></details>'
    ).format(number, where, pieces, pictures, item.document, item.start, item.end, f"{item.score:.3f}", link)


def _rest(spans: Sequence[RetrievedSpan]) -> Markup:
    """Return, folded, what else was retrieved beyond the sources shown in full."""
    if not spans:
        return Markup("")
    lines = Markup("").join(
        Markup("<li>{} ({}, characters {}–{}, score {})</li>").format(
            span.title or span.document, span.document, span.start, span.end, f"{span.score:.3f}"
        )
        for span in spans
    )
    words = f"{count(len(spans), 'more passage')} retrieved"
    return Markup("<details><summary>{}</summary><ul>{}</ul></details>").format(words, lines)


def _picture(picture: Picture) -> Markup:
    """Return a picture with its words below it."""
    words = Markup("<figcaption>{}</figcaption>").format(picture.words) if picture.words else ""
    return Markup('<figure><img alt="{}" src="{}">{}</figure>').format(picture.words, picture.address, words)


_TABLE = re.compile(r"(?m)^\|.+\|[ \t]*\n\|[ \t:|\-]+\|[ \t]*(?:\n|\Z)(?:^\|.*\|[ \t]*(?:\n|\Z))*")
"""A markdown table: its head, the line below that, its rows."""


def flowing(text: str) -> Markup:
    """Return markdown text escaped: lines of one paragraph joined, headings in bold, tables as tables."""
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"[picture: \1]", text)  # it stands below the text
    text, parts, place = text.replace("**", ""), [], 0
    for found in _TABLE.finditer(text):
        parts += [_paragraphs(text[place : found.start()]), _rows(found.group())]
        place = found.end()
    return Markup("").join([*parts, _paragraphs(text[place:])])


def _paragraphs(text: str) -> Markup:
    """Return text without whole tables; of one that a mark cuts in two, the rows as lines of their cells."""
    joined = re.sub(r"(?<!\n)\n(?![\n\-*+|#>\d ])", " ", text)
    joined = re.sub(r"(?m)^\|[ \t:|\-]*\|[ \t]*\n", "", joined)
    joined = re.sub(r"(?m)^\|.*$|^.*\|[ \t]*$", lambda row: f"{' · '.join(_cells(row.group()))} ", joined)
    parts = re.split(r"(?m)^#{1,6}[ \t]+(.+)$\n*", joined)
    return Markup("").join(
        Markup("<b>{}</b>\n").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _rows(table: str) -> Markup:
    """Return a markdown table as HTML."""
    head, _, *rows = (_cells(line, empty=True) for line in table.strip().split("\n"))
    lines = [
        Markup("<tr>{}</tr>").format(Markup("").join(Markup(f"<{tag}>{{}}</{tag}>").format(cell) for cell in cells))
        for tag, cells in (("th", head), *(("td", row) for row in rows))
    ]
    return Markup('<table class="v-rows">{}</table>').format(Markup("").join(lines))


def _cells(line: str, *, empty: bool = False) -> list[str]:
    """Return the cells of a table's line; without the empty ones unless they are wanted."""
    cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
    return [cell for cell in cells if cell or empty]


def note_of(kind: str) -> str:
    """Return in a few words where an arm of a kind has its answers from."""
    return "from memory" if kind in CLOSED_BOOK else "reads documents"


def listing_card(listing: Listing) -> Markup:
    """Return a listing as a card: title, price, rating, attributes, description."""
    price = (
        f"{listing.price:,.2f} {listing.currency or ''}".replace(".00", "") if listing.price is not None else "no price"
    )
    rating = f"★ {listing.rating:g} ({listing.reviews})" if listing.rating else ""
    facts = " · ".join(item for item in (listing.category, listing.place or "", rating) if item)
    chips = Markup("").join(Markup("<li>{}: {}</li>").format(*pair) for pair in listing.attributes.items())
    return Markup(
        '<article class="v-card"><h3>{}</h3><div class="v-price">{}</div><p class="v-facts">{}</p>'
        '<ul class="v-chips">{}</ul><div class="v-answer" dir="auto">{}</div></article>'
    ).format(listing.title, price.strip(), facts, chips, listing.description)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, wide: Sequence[int] = ()) -> None:
    """Show a table that scrolls sideways on a narrow screen; columns in `wide` hold running text."""
    left = Markup(" class=wide")
    head = Markup("").join(
        Markup("<th scope=col{}>{}</th>").format(left if place in wide else "", name)
        for place, name in enumerate(header)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("<td{}>{}</td>").format(left if place in wide else "", _cell(cell))
                for place, cell in enumerate(row)
            )
        )
        for row in rows
    )
    html(
        Markup('<div class="v-scroll" tabindex=0><table class="v-table"><tr>{}</tr>{}</table></div>').format(head, body)
    )


def standings(found: Sequence[Standing]) -> None:
    """Show a leaderboard with its intervals on one scale."""
    low = min(item.points if item.low is None else item.low for item in found) - 10
    high = max(item.points if item.high is None else item.high for item in found) + 10

    def share(points: float) -> str:
        return f"{100 * (points - low) / (high - low):.1f}"

    rows = []
    for place, item in enumerate(found, start=1):
        bar = Markup(
            '<div class="v-bar" style="--arm:{}"><i style="left:{}%;right:{}%"></i><b style="left:{}%"></b></div>'
        ).format(
            colour(item.arm, [other.arm for other in found]),
            share(item.points if item.low is None else item.low),
            f"{100 - float(share(item.points if item.high is None else item.high)):.1f}",
            share(item.points),
        )
        interval = "" if item.low is None or item.high is None else f" ({item.low:.0f} to {item.high:.0f})"
        points = f"{item.points:.0f}{interval}"
        record = f"{item.wins}–{item.ties}–{item.losses}"
        rows.append((f"{place}. {label(item.arm)}", points, bar, item.votes, record, _needed(item.needed)))
    table(("arm", "points (95 %)", "", "votes", "won–tied–lost", "votes still needed"), rows)


def _needed(needed: int | None) -> str:
    if needed is None:
        return "–"
    if needed >= MOST_NEEDED:
        return "too close to tell"
    return "enough" if needed == 0 else f"about {needed:,}"


def document(
    markdown: str, picture: Callable[[str], str | None], page: Callable[[str], str | None] = lambda link: None
) -> Markup:
    """Return a document's light markdown as HTML: no HTML of its own, no script, pictures only from `picture`.

    Links lead to the web, in a tab of their own, or where `page` says that this app shows what they name; the words of
    others stay words.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(renderer: Any, tokens: Any, place: int, options: Any, env: Any) -> str:
        address = picture(str(tokens[place].attrGet("src") or ""))
        words = tokens[place].content
        if address is None:
            return str(Markup("<em>[picture: {}]</em>").format(words))
        return str(Markup('<img alt="{}" src="{}">').format(words, address))

    def link(renderer: Any, tokens: Any, place: int, options: Any, env: Any) -> str:
        address = str(tokens[place].attrGet("href") or "")
        if re.match(r"(?i)https?://", address):
            return str(Markup('<a href="{}" target="_blank" rel="noopener noreferrer">').format(address))
        own = page(address)
        return "<a>" if own is None else str(Markup('<a href="{}" target="_self">').format(own))

    parser.add_render_rule("image", image)
    parser.add_render_rule("link_open", link)
    return Markup('<div class="v-doc" dir="auto">{}</div>').format(Markup(parser.render(markdown[:400_000])))


def _cell(cell: object) -> object:
    if isinstance(cell, float):
        return f"{cell:.3f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return "–" if cell is None else cell


def _with_code(line: str) -> Markup:
    parts = line.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )

"""`versus questions review`: drafted questions beside their evidence, to accept, edit or reject in the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json, print_table
from comparison_app.workspace import Workspace
from data_prep.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from data_prep.review import ReviewItem

Ask = Callable[[str], str]
KEYS = "[a]ccept, [e]dit, [r]eject, [s]kip, [q]uit"


def register(actions: Any) -> None:
    """Add the action."""
    parser = add_command(
        actions,
        "review",
        run,
        "look at drafted questions beside their evidence, and accept, edit or reject them",
        "versus questions review my-manual",
    )
    parser.add_argument("corpus", help="a corpus, by path or name")
    parser.add_argument("--list", action="store_true", help="show the drafts and what was decided; ask nothing")
    parser.add_argument("--accept", action="append", default=[], metavar="ID", help="accept this draft; ask nothing")
    parser.add_argument("--reject", action="append", default=[], metavar="ID", help="reject this draft; ask nothing")
    parser.add_argument("--accept-rest", action="store_true", help="accept every draft not decided on; ask nothing")


def run(arguments: argparse.Namespace) -> int:
    """Review, then write the accepted drafts into `facts.jsonl`."""
    from data_prep.review import decide, load_drafts, publish_facts, review_counts

    corpus = Workspace.resolve(arguments.workspace).corpus(arguments.corpus)
    items = load_drafts(corpus.path)
    if arguments.list:
        return _list(items, as_json=arguments.json)
    rest = [item.id for item in items if item.state is None] if arguments.accept_rest else []
    rejected = set(arguments.reject)
    for name in (*arguments.accept, *(name for name in rest if name not in rejected)):
        decide(corpus.path, name, "accept")
    for name in arguments.reject:
        decide(corpus.path, name, "reject")
    if not (arguments.accept or arguments.reject or arguments.accept_rest):
        review_in_terminal(corpus.path, input, console())
    facts = publish_facts(corpus.path)
    counts = review_counts(corpus.path)
    if arguments.json:
        print_json({"corpus": str(corpus.path), "decisions": counts, "facts": facts})
        return 0
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    console().print(f"{told}; {facts} facts in {corpus.path / 'questions' / 'facts.jsonl'}", markup=False)
    console().print(f"next: versus questions split {arguments.corpus}", markup=False)
    return 0


def review_in_terminal(corpus_path: Path, ask: Ask, out: Console) -> int:
    """Show each undecided draft and take one answer for it; returns how many were decided. End of input quits."""
    from data_prep.review import load_drafts

    items = [item for item in load_drafts(corpus_path) if item.state is None]
    decided = 0
    for number, item in enumerate(items, start=1):
        _show(item, f"{number} of {len(items)}", out)
        try:
            answer = _decide(corpus_path, item, ask, out)
        except EOFError:
            break
        if answer == "q":
            break
        decided += answer != "s"
    return decided


def _show(item: ReviewItem, place: str, out: Console) -> None:
    """Print one draft: what it asks and answers, and its evidence highlighted where it stands."""
    from rich.text import Text

    draft = item.draft
    out.rule(f"{place} · {draft.id}", align="left")
    for label, texts in (("question", draft.wordings), ("paraphrase", draft.paraphrases), ("answer", draft.answers)):
        for text in texts:
            out.print(Text.assemble((f"{label:>10}  ", "bold"), text))
    if not draft.answerable:
        out.print(Text("    answer  none: the documents should not answer it", style="yellow"))
    where = f"{draft.document} › {draft.section}" if draft.section else draft.document
    found = f"found by {draft.located}" if draft.located else "no evidence"
    out.print(Text(f"  evidence  {where} ({found})", style="dim"))
    out.print(Text.assemble((item.before, "dim"), (item.evidence, "black on yellow"), (item.after, "dim")))


def _decide(corpus_path: Path, item: ReviewItem, ask: Ask, out: Console) -> str:
    """Take one valid answer and record it; returns its key."""
    from data_prep.review import decide

    while True:
        key = ask(f"{KEYS}: ").strip().lower()[:1]
        if key in ("s", "q"):
            return key
        edited = _edits(item, ask) if key == "e" else None
        decision = {"a": "accept", "r": "reject", "e": "edit" if edited else "accept"}.get(key)
        if decision is None:
            continue
        try:
            decide(corpus_path, item.id, decision, edited)
        except DataError as error:
            out.print(f"{error}", style="red", markup=False)
            continue
        return key


def _edits(item: ReviewItem, ask: Ask) -> Mapping[str, Any]:
    """Ask for each part anew; an empty line keeps it. Several wordings or answers are separated by " | "."""
    edited: dict[str, Any] = {}
    draft = item.draft
    for name, values in (("wordings", draft.wordings), ("paraphrases", draft.paraphrases), ("answers", draft.answers)):
        given = ask(f"{name} [{' | '.join(values)}]: ").strip()
        if given:
            edited[name] = [part.strip() for part in given.split(" | ") if part.strip()]
    if draft.answerable and (given := ask(f"evidence, as it stands in the document [{draft.quote}]: ").strip()):
        edited["quote"] = given
    return edited


def _list(items: list[ReviewItem], *, as_json: bool) -> int:
    if as_json:
        from dataclasses import asdict

        print_json([{**asdict(item), "id": item.id} for item in items])
        return 0
    rows = [(item.state or "open", item.id, item.draft.wordings[0], " / ".join(item.draft.answers)) for item in items]
    print_table(f"{len(items)} drafts", ["", "id", "question", "answer"], rows, numbers_from=4)
    return 0

"""`versus questions`: drafted or imported questions in, splits and slices out, and the checks they must pass."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comparison_app.commands import add_command, questions_draft, questions_export, questions_review
from comparison_app.console import console, print_json, print_table
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus


def register(subparsers: Any) -> None:
    """Add the command and its three actions."""
    parser = subparsers.add_parser("questions", help="draft, review, import, split, check and export questions")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    questions_draft.register(actions)
    questions_review.register(actions)
    _register_import(actions)
    _register_split(actions)
    questions_export.register(actions)
    check = add_command(
        actions,
        "check",
        run_check,
        "check evidence, duplicates, leaks, paraphrases, slices and the manifest of a corpus; report leakage",
        "versus questions check tern-manual",
    )
    check.add_argument("corpus", help="a corpus, by path or name")
    check.add_argument(
        "--numbers", action="store_true", help="list numbers that two documents claim differently, to read"
    )


def _register_import(actions: Any) -> None:
    parser = add_command(
        actions,
        "import",
        run_import,
        "read question files as people have them (JSONL, JSON, CSV) into a corpus",
        "versus questions import qa.train.jsonl qa.test.jsonl --into my-manual --map question=prompt",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .jsonl, .json, .csv or .tsv file")
    parser.add_argument("--into", required=True, metavar="CORPUS", help="the corpus that the documents are in")
    parser.add_argument(
        "--map", action="append", default=[], metavar="OURS=THEIRS", help="name a field of the files, say answers=reply"
    )
    parser.add_argument(
        "--ground", action="store_true", help="find each answer's evidence; leave out what its document does not carry"
    )


def _register_split(actions: Any) -> None:
    parser = add_command(
        actions,
        "split",
        run_split,
        "share the facts of questions/facts.jsonl out to train, dev and test",
        "versus questions split my-manual --unseen 0.2 --seed 0",
    )
    parser.add_argument("corpus", help="a corpus, by path or name")
    parser.add_argument(
        "--unseen", type=float, default=0.2, help="share of the pages kept from training (default: 0.2)"
    )
    parser.add_argument("--unseen-documents", metavar="IDS", help="those pages by name instead, separated by commas")
    parser.add_argument("--dev-documents", metavar="IDS", help="unseen pages that are asked in dev, not in test")
    parser.add_argument("--trained", type=float, default=0.45, help="share of a page's facts to train (default: 0.45)")
    parser.add_argument(
        "--together",
        action="store_true",
        help="keep facts with the same evidence or nearly the same words in one split",
    )
    parser.add_argument(
        "--subsets", default="60,120,250", help="sizes of nested subsets, in facts (default: 60,120,250)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default: 0)")


def run_import(arguments: argparse.Namespace) -> int:
    """Import, and say how many questions went where."""
    from data_prep.corpus import find_corpus, load_corpus
    from data_prep.importing import import_questions

    names = dict(_pair(text) for text in arguments.map)
    workspace = Workspace.resolve(arguments.workspace)
    corpus = load_corpus(find_corpus(arguments.into, workspace.path))
    report = import_questions(arguments.files, corpus, names=names)
    grounding = _grounded(corpus) if arguments.ground else None
    if arguments.json:
        print_json({"corpus": str(corpus.path), **asdict(report), "grounding": grounding})
        return 0
    print_table(f"{report.questions} questions into {corpus.path}", ["split", "questions"], list(report.splits.items()))
    print_table("", ["slice", "questions"], sorted(report.slices.items()))
    if report.repeated:
        console().print(f"{report.repeated} train questions are repeated in test, to measure memorisation")
    if grounding:
        rows = [("stay", grounding["kept"]), *((f"dropped: {k}", n) for k, n in grounding["reasons"].items())]
        print_table(f"{grounding['drafts']} questions held against their documents", ["", "questions"], rows)
        for check in grounding["unchecked"]:
            console().print(f"not checked: {check}", style="yellow", markup=False)
    return 0


def _grounded(corpus: Corpus) -> dict[str, Any]:
    """Ground the imported questions; return the report without the dropped ones, which stand in `grounding.json`."""
    import json

    from comparison_app.question_models import grounding_embedder
    from data_prep.atomic import write_text
    from data_prep.imported_grounding import ground_imported

    report = asdict(ground_imported(corpus, embed=grounding_embedder()))
    write_text(corpus.path / "questions" / "grounding.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return {key: value for key, value in report.items() if key != "dropped"}


def run_split(arguments: argparse.Namespace) -> int:
    """Split the facts and write the question files."""
    from data_prep.facts import SplitPlan, read_facts, split_facts, write_splits

    corpus = Workspace.resolve(arguments.workspace).corpus(arguments.corpus)
    folder = corpus.path / "questions"
    _take_in_drafts(corpus)
    facts = read_facts(folder / "facts.jsonl")
    new = corpus.new_document_ids()
    pages = sorted({document for fact in facts for document in fact.documents} - new)
    unseen, dev = _unseen(arguments, pages)
    subsets = _sizes(arguments.subsets)
    plan = SplitPlan(
        unseen,
        dev,
        frozenset(new),
        trained_share=arguments.trained,
        subsets=subsets,
        seed=arguments.seed,
        together=arguments.together,
    )
    splits = split_facts(facts, plan)
    write_splits(folder, splits)
    counts = {
        name: dict(Counter(q.slice or "none" for q in getattr(splits, name))) for name in ("train", "dev", "test")
    }
    report = _leakage(corpus)
    if arguments.json:
        subset_sizes = {name: len(names) for name, names in splits.subsets.items()}
        told = {"unseen_documents": sorted(unseen), "slices": counts, "subsets": subset_sizes, "leakage": report}
        print_json({"corpus": str(corpus.path), **told})
        return 0
    rows = [(name, slice_, count) for name, slices in counts.items() for slice_, count in sorted(slices.items())]
    print_table(f"{len(facts)} facts of {corpus.name}", ["split", "slice", "questions"], rows, numbers_from=2)
    _show_leakage(report)
    if not arguments.together and any(
        found["leaks"]["near"] + found["leaks"]["same-evidence"] for found in report.values()
    ):
        console().print("--together keeps facts that share evidence or wording in one split")
    return 0


def _take_in_drafts(corpus: Corpus) -> None:
    """Bring `facts.jsonl` up to date with what was decided on drafts, where there are any."""
    from data_prep.drafts import drafts_path
    from data_prep.review import publish_facts, review_counts

    if drafts_path(corpus.path).exists() and any(review_counts(corpus.path)[state] for state in ("accepted", "edited")):
        publish_facts(corpus.path)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ComparisonError(f"--subsets {text!r}: give whole numbers separated by commas, say 60,120,250") from error


def _leakage(corpus: Corpus) -> dict[str, Any]:
    """Return what dev and test share with train, by kind, with up to 50 leaks of each split."""
    from data_prep.leakage import leakage

    found = {}
    train = corpus.questions("train")
    for split in ("dev", "test"):
        report = leakage(train, corpus.questions(split), language=corpus.language)
        found[split] = {"leaks": report.counts, "meant": report.meant, "first": [asdict(x) for x in report.leaks[:50]]}
    return found


def _show_leakage(report: dict[str, Any]) -> None:
    rows = [
        (split, kind, count, report[split]["meant"][kind])
        for split in report
        for kind, count in report[split]["leaks"].items()
    ]
    print_table("shared with train", ["split", "what", "leaks", "meant by the slice"], rows, numbers_from=2)


def run_check(arguments: argparse.Namespace) -> int:
    """Check a corpus; exit code 1 if anything does not hold."""
    from data_prep.checks import check_corpus

    corpus = Workspace.resolve(arguments.workspace).corpus(arguments.corpus)
    if arguments.numbers:
        return _show_numbers(corpus, as_json=arguments.json)
    problems, report = check_corpus(corpus), _leakage(corpus)
    if arguments.json:
        found = [asdict(problem) for problem in problems]
        print_json({"corpus": str(corpus.path), "problems": found, "leakage": report})
        return 1 if problems else 0
    _show_leakage(report)
    if not problems:
        console().print(f"{corpus.name}: every check holds")
        return 0
    rows = [(problem.check, problem.where, problem.message) for problem in problems[:50]]
    print_table(f"{corpus.name}: {len(problems)} problems", ["check", "where", "what"], rows, numbers_from=3)
    return 1


def _show_numbers(corpus: Corpus, *, as_json: bool) -> int:
    """List the claims to read; they are candidates, so the exit code is 0."""
    from data_prep.consistency import contradictions

    found = contradictions({document.id: document.content or "" for document in corpus.documents(include_new=True)})
    if as_json:
        print_json([[asdict(first), asdict(second)] for first, second in found])
        return 0
    rows = [(a.document, a.text, b.document, b.text) for a, b in found]
    print_table(f"{len(rows)} pairs to read", ["document", "says", "document", "says"], rows, numbers_from=4)
    return 0


def _pair(text: str) -> tuple[str, str]:
    ours, separator, theirs = text.partition("=")
    if not separator or not ours or not theirs:
        raise ComparisonError(f"--map {text!r}: write it as OURS=THEIRS, say --map answers=reply")
    return ours, theirs


def _unseen(arguments: argparse.Namespace, pages: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the pages that are asked unseen in test and in dev."""
    import random

    if arguments.unseen_documents:
        unseen = set(arguments.unseen_documents.split(","))
        dev = set(arguments.dev_documents.split(",")) if arguments.dev_documents else set()
        unknown = (unseen | dev) - set(pages)
        if unknown:
            raise ComparisonError(f"no facts of a document {', '.join(sorted(unknown))}")
        return frozenset(unseen), frozenset(dev)
    chosen = random.Random(arguments.seed).sample(pages, round(arguments.unseen * len(pages)))
    in_dev = len(chosen) // 5
    return frozenset(chosen[in_dev:]), frozenset(chosen[:in_dev])

"""`versus questions draft`: questions drafted from a corpus by a model, or by rules, then grounded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json, print_table, progress_bar
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from data_prep.errors import DataError

if TYPE_CHECKING:
    from comparison_app.question_models import ModelSpec
    from data_prep.drafting import DraftConfig, DraftEstimate, DraftRun
    from data_prep.drafts import Draft
    from data_prep.grounding import GroundingReport, Judge

LESSER_WAY = (
    "No model was named, so definitions, table rows and headings become questions by rule. This is the lesser way: it "
    "misses most of what a document holds, its wordings are stiff, and its unanswerable questions are general ones. "
    "--model NAME --endpoint URL drafts with a model."
)


def register(actions: Any) -> None:
    """Add the action."""
    parser = add_command(
        actions,
        "draft",
        run,
        "draft questions with a model (or by rules), locate their evidence, and drop what the documents do not carry",
        "versus questions draft my-manual --model qwen3:8b --endpoint http://localhost:11434/v1 --plan",
    )
    parser.add_argument("corpus", help="a corpus, by path or name")
    parser.add_argument("--documents", metavar="IDS", help="only these documents, separated by commas")
    parser.add_argument(
        "--plan", action="store_true", help="say what would be asked and what it would cost; ask nothing"
    )
    parser.add_argument("--accept", action="store_true", help="let in all that stays, without a review")
    _register_model(parser)
    amounts = parser.add_argument_group("amounts")
    amounts.add_argument("--facts", type=int, default=3, help="facts of each section at most (default: 3)")
    amounts.add_argument("--wordings", type=int, default=2, help="wordings of each fact (default: 2), and a paraphrase")
    amounts.add_argument("--near-misses", type=int, default=1, help="unanswerable questions a section (default: 1)")
    checks = parser.add_argument_group("checks")
    checks.add_argument("--judge", metavar="NAME", help="a model that is asked whether the evidence gives the answer")
    checks.add_argument("--judge-endpoint", metavar="URL", help="its endpoint (default: that of --model)")
    checks.add_argument("--no-embedder", action="store_true", help="let words and numbers alone decide")


def _register_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="NAME", help="the model that drafts (default: none, rules draft)")
    model.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint (default: the model runs here)")
    model.add_argument("--api-key-env", metavar="NAME", help="the environment variable that holds the endpoint's key")
    model.add_argument("--in-flight", type=int, default=8, help="requests at once (default: 8; 1 for a model run here)")
    model.add_argument("--input-price", type=float, default=0.0, help="money per million prompt tokens")
    model.add_argument("--output-price", type=float, default=0.0, help="money per million completion tokens")
    model.add_argument("--currency", default="USD", help="of the prices (default: USD)")
    model.add_argument("--max-cost", type=float, help="stop asking when so much is spent")


def run(arguments: argparse.Namespace) -> int:
    """Draft, ground, write `drafts.jsonl` and `grounding.json`, and say what came of it."""
    corpus = Workspace.resolve(arguments.workspace).corpus(arguments.corpus)
    texts = _chosen(corpus, arguments.documents)
    folder = corpus.path / "questions"
    spec = _spec(arguments)
    if arguments.plan:
        return _plan(arguments, texts, folder, spec)
    drafting: DraftRun | None = None
    if spec is None:
        from data_prep.draft_rules import draft_by_rules

        drafts = draft_by_rules(texts, corpus.language)
    else:
        drafting = _draft(arguments, texts, folder, spec)
        drafts = drafting.drafts
    if not drafts:
        reason = next(iter(drafting.failed.values()), "nothing to ask was found") if drafting else "no rule found any"
        raise DataError(f"no questions were drafted from corpus {corpus.name}: {reason}")
    kept, report = _ground(arguments, corpus, drafts, folder, spec)
    _write(folder, kept, report)
    published = _publish(corpus) if arguments.accept else None
    _tell(arguments, corpus, drafting, report, published)
    return 1 if drafting is not None and drafting.failed and not kept else 0


def _chosen(corpus: Corpus, names: str | None) -> dict[str, str]:
    texts = corpus.texts(include_new=True)
    if names is None:
        return texts
    unknown = set(names.split(",")) - set(texts)
    if unknown:
        raise ComparisonError(f"corpus {corpus.name} has no document {', '.join(sorted(unknown))}")
    return {name: texts[name] for name in names.split(",")}


def _spec(arguments: argparse.Namespace) -> ModelSpec | None:
    from comparison_app.question_models import ModelSpec

    if arguments.model is None:
        if arguments.endpoint or arguments.judge:
            raise ComparisonError("--endpoint and --judge need --model: name the model that drafts")
        return None
    return ModelSpec(arguments.model, arguments.endpoint, arguments.api_key_env)


def _config(arguments: argparse.Namespace) -> DraftConfig:
    from data_prep.drafting import DraftConfig

    return DraftConfig(
        facts=arguments.facts,
        wordings=arguments.wordings,
        near_misses=arguments.near_misses,
        in_flight=arguments.in_flight if arguments.endpoint else 1,
        input_price=arguments.input_price,
        output_price=arguments.output_price,
        currency=arguments.currency,
        max_cost=arguments.max_cost,
    )


def _plan(arguments: argparse.Namespace, texts: Mapping[str, str], folder: Path, spec: ModelSpec | None) -> int:
    if spec is None:
        if arguments.json:
            print_json({"model": None, "sections": 0, "to_ask": 0, "cost": 0.0, "note": LESSER_WAY})
        else:
            console().print(LESSER_WAY + " It asks nothing and costs nothing.")
        return 0
    from data_prep.drafting import estimate_drafting

    estimate = estimate_drafting(texts, folder / "drafting.sqlite", _config(arguments), model=spec.label)
    if arguments.json:
        print_json({"model": spec.label, **asdict(estimate)})
    else:
        console().print(_before(estimate))
    return 0


def _before(estimate: DraftEstimate) -> str:
    known = estimate.sections - estimate.to_ask
    basis = "by the replies so far" if estimate.measured else "estimated at 4 characters a token"
    return (
        f"{estimate.sections} sections, {known} of them drafted already; {estimate.to_ask} to ask: about "
        f"{estimate.prompt_tokens:,} + {estimate.completion_tokens:,} tokens ({basis}), "
        f"about {estimate.cost:,.2f} {estimate.currency}"
    )


def _draft(arguments: argparse.Namespace, texts: Mapping[str, str], folder: Path, spec: ModelSpec) -> DraftRun:
    from comparison_app.question_models import chat_generator
    from data_prep.drafting import draft_questions, estimate_drafting

    config, journal = _config(arguments), folder / "drafting.sqlite"
    if not arguments.json:
        console().print(_before(estimate_drafting(texts, journal, config, model=spec.label)))
    generator = chat_generator(spec)
    with progress_bar("drafting", quiet=arguments.json) as progress:
        return draft_questions(texts, generator, journal, config, model=spec.label, progress=progress)


def _ground(
    arguments: argparse.Namespace, corpus: Corpus, drafts: list[Draft], folder: Path, spec: ModelSpec | None
) -> tuple[list[Draft], GroundingReport]:
    from comparison_app.question_models import grounding_embedder
    from data_prep.grounding import GroundingConfig, ground_drafts

    return ground_drafts(
        drafts,
        corpus.texts(include_new=True),
        embed=None if arguments.no_embedder else grounding_embedder(),
        judge=_judge(arguments, folder, spec) if spec is not None and arguments.judge else None,
        config=GroundingConfig(language=corpus.language),
    )


def _judge(arguments: argparse.Namespace, folder: Path, spec: ModelSpec) -> Judge:
    from comparison_app.question_models import ModelSpec, chat_generator
    from data_prep.judging import ModelJudge

    endpoint = arguments.judge_endpoint or spec.endpoint
    judge = ModelSpec(arguments.judge, endpoint, spec.api_key_env, max_tokens=8)
    in_flight = arguments.in_flight if endpoint else 1
    return ModelJudge(chat_generator(judge), judge.label, folder / "drafting.sqlite", in_flight=in_flight)


def _write(folder: Path, kept: list[Draft], report: GroundingReport) -> None:
    from data_prep.atomic import write_text
    from data_prep.drafts import drafts_path, write_drafts

    write_drafts(drafts_path(folder.parent), kept)
    write_text(folder / "grounding.json", json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n")


def _publish(corpus: Corpus) -> int:
    from data_prep.review import publish_facts

    return publish_facts(corpus.path, open_too=True)


def _tell(
    arguments: argparse.Namespace,
    corpus: Corpus,
    drafting: DraftRun | None,
    report: GroundingReport,
    published: int | None,
) -> None:
    numbers = {key: value for key, value in asdict(report).items() if key != "dropped"}
    if arguments.json:
        spent = {key: value for key, value in asdict(drafting).items() if key != "drafts"} if drafting else None
        print_json({"corpus": str(corpus.path), "drafting": spent, "grounding": numbers, "facts": published})
        return
    out = console()
    if drafting is None:
        out.print(LESSER_WAY, style="yellow")
    else:
        _tell_drafting(drafting)
    rows = [
        ("drafted", report.drafts),
        ("stay", report.kept),
        *((f"dropped: {k}", n) for k, n in report.reasons.items()),
    ]
    print_table(f"drafts of {corpus.name}", ["", "drafts"], rows)
    for check in report.unchecked:
        out.print(f"not checked: {check}", style="yellow", markup=False)
    out.print(f"every dropped draft with its reason: {corpus.path / 'questions' / 'grounding.json'}", markup=False)
    then = "versus questions split" if published is not None else "versus questions review"
    if published is not None:
        out.print(f"{published} facts in {corpus.path / 'questions' / 'facts.jsonl'}", markup=False)
    out.print(f"next: {then} {arguments.corpus}", markup=False)


def _tell_drafting(drafting: DraftRun) -> None:
    out = console()
    out.print(
        f"{drafting.asked} sections asked in {drafting.seconds:.0f} s, {drafting.known} known from before, "
        f"{len(drafting.failed)} failed, {drafting.unasked} left: {drafting.prompt_tokens:,} + "
        f"{drafting.completion_tokens:,} tokens, {drafting.cost:,.4f} {drafting.currency}"
    )
    for place, reason in list(drafting.failed.items())[:10]:
        out.print(f"  failed {place}: {reason}", markup=False)
    if drafting.failed or drafting.unasked:
        out.print("  the same command asks these again, and nothing else")

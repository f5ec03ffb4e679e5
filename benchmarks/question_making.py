"""Drafting under failures, grounding of machine-made pairs, and the speed of a large corpus.

Commands:

    python benchmarks/question_making.py drafting [--sections 2000]   kill and resume against a failing local server
    python benchmarks/question_making.py grounding [--no-embedder]    tesla-model3 pairs through ground, filter, split
    python benchmarks/question_making.py precision                    the sample manual's facts, true and spoilt
    python benchmarks/question_making.py corpus [--documents 10000]   load, verify and check a large corpus

The data of `grounding` lies in the folder that VERSUS_BENCH_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peak_memory import peak_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTY = 0.05
LATENCY = 0.02
FAULTS = ("error", "busy", "words", "cut", "empty", "closed")


def main() -> int:
    """Run one of the benchmarks and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drafting", "grounding", "precision", "corpus"))
    parser.add_argument("--sections", type=int, default=2_000)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--no-embedder", action="store_true")
    parser.add_argument("--sample", type=int, help="pairs of `grounding`, drawn by seed 0 (default: all)")
    parser.add_argument("--examples", type=int, default=0, help="print so many dropped pairs of each reason")
    arguments = parser.parse_args()
    measure = {"drafting": _drafting, "grounding": _grounding, "precision": _precision, "corpus": _corpus}
    print(json.dumps(measure[arguments.what](arguments), indent=1, ensure_ascii=False))
    return 0


def _drafting(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draft a corpus of so many sections twice killed, then to the end; count what was asked and what came of it."""
    with tempfile.TemporaryDirectory() as folder, _faulty_server() as (url, seen):
        corpus = _write_corpus(Path(folder) / "large", arguments.sections)
        command = [sys.executable, "-m", "comparison_app.cli", "questions", "draft", str(corpus), "--model", "m"]
        command += ["--endpoint", url, "--in-flight", "8", "--no-embedder", "--json", "--near-misses", "1"]
        started, answered_before = time.monotonic(), []
        for kill_at in (arguments.sections // 4, arguments.sections // 2):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(seen) < kill_at and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            answered_before.append(len(seen))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - started
        last = json.loads(done.stdout)
        sent = len(seen)
        subprocess.run(command, capture_output=True, text=True, check=True)
        drafts = [json.loads(line) for line in (corpus / "questions" / "drafts.jsonl").read_text().splitlines()]
        answered = Counter(section for section, fault in seen if fault is None)
        return {
            "sections": last["drafting"]["sections"],
            "killed at requests": answered_before,
            "requests": sent,
            "faults served": dict(Counter(fault for _, fault in seen if fault)),
            "sections failed in the end": len(last["drafting"]["failed"]),
            "sections with a draft": len({draft["document"] for draft in drafts if draft["answers"]}),
            "good replies given twice (under way at a kill)": sum(count - 1 for count in answered.values()),
            "requests of one more run": len(seen) - sent,
            "seconds, three processes": round(seconds, 1),
            "grounding": last["grounding"],
        }


def _write_corpus(path: Path, sections: int) -> Path:
    """Write a corpus of one-section documents, each with its own number."""
    from data_prep.corpus import write_settings

    (path / "documents").mkdir(parents=True)
    for number in range(sections):
        text = (
            f"# Part {number}\n\nPart {number} of the machine runs for {number % 90 + 2} hours between two services.\n"
        )
        (path / "documents" / f"part-{number:05}.md").write_text(text)
    write_settings(path, language="en", licence="CC0-1.0", description="A large machine.")
    return path


@contextmanager
def _faulty_server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve chat completions; `FAULTY` of the requests fail in one of several ways, by a seeded draw."""
    seen: list[tuple[str, str | None]] = []
    lock, chance = threading.Lock(), random.Random(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = next(row["content"] for row in body["messages"] if row["role"] == "user")
            with lock:
                fault = chance.choice(FAULTS) if chance.random() < FAULTY else None
                seen.append((request, fault))
            time.sleep(LATENCY)
            if fault == "closed":
                self.close_connection = True
                self.connection.close()
                return
            status = {"error": 500, "busy": 503}.get(fault or "", 200)
            self._send(status, {"error": {"message": fault}} if status != 200 else _completion(request, fault))

        def _send(self, status: int, data: dict[str, Any]) -> None:
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()


def _completion(request: str, fault: str | None) -> dict[str, Any]:
    name = request.split("Section: ")[1].split("\n")[0]
    sentence = next(line for line in request.split("==========")[1].splitlines() if line.startswith("Part"))
    fact = {
        "questions": [f"How long does {name} of the machine run between services?", f"When is {name} due for service?"],
        "paraphrase": f"After what time must {name} be looked at?",
        "answer": sentence,
        "quote": sentence,
    }
    text = json.dumps({"facts": [fact], "unanswerable": [f"Who makes {name}?"]})
    text = {"words": "I am afraid I cannot do that.", "cut": text[: len(text) // 2], "empty": ""}.get(fault or "", text)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": len(request) // 4, "completion_tokens": len(text) // 4, "total_tokens": 0}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def _grounding(arguments: argparse.Namespace) -> dict[str, Any]:
    """Hold the tesla-model3 pairs against the manual, split what stays, and report what the splits share."""
    from data_prep.facts import SplitPlan, split_facts
    from data_prep.grounding import ground_drafts
    from data_prep.imported_grounding import drafts_of_questions
    from data_prep.leakage import leakage
    from data_prep.questions import Evidence, Question

    if not os.environ.get("VERSUS_BENCH_DATA"):
        sys.exit("set VERSUS_BENCH_DATA to the folder that holds the benchmarks' data sets")
    folder = Path(os.environ["VERSUS_BENCH_DATA"]) / "tesla-model3"
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / "docs").glob("*.md"))}
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = random.Random(0).sample(rows, arguments.sample) if arguments.sample else rows
    questions = [Question(row["id"], row["question"], (row["answer"],), (Evidence(row["doc"]),)) for row in rows]
    started = time.process_time()
    drafts = drafts_of_questions(questions, texts)
    located = time.process_time() - started
    kept, report = ground_drafts(drafts, texts, embed=None if arguments.no_embedder else _embedder())
    seconds = time.process_time() - started
    for reason in report.reasons if arguments.examples else ():
        _show([draft for draft in report.dropped if draft.dropped == reason], arguments.examples)
    pages = sorted({draft.document for draft in kept})
    unseen = frozenset(random.Random(0).sample(pages, len(pages) // 5))
    facts = [draft.fact() for draft in kept]
    splits = split_facts(facts, SplitPlan(unseen))
    together = split_facts(facts, SplitPlan(unseen, together=True))
    shared, less = leakage(splits.train, splits.test), leakage(together.train, together.test)
    return {
        "pairs": len(rows),
        "stay": report.kept,
        "dropped": report.reasons,
        "pages of those that stay": len(pages),
        "CPU seconds to find evidence": round(located, 1),
        "CPU seconds in all": round(seconds, 1),
        "split": {name: dict(Counter(q.slice for q in getattr(splits, name))) for name in ("train", "dev", "test")},
        "subsets": {name: len(names) for name, names in splits.subsets.items()},
        "leaks in test": shared.counts,
        "meant": shared.meant,
        "leaks in test, facts that are nearly one kept together": less.counts,
        "trained facts then": len({question.fact for question in together.train}),
    }


def _show(drafts: list[Any], count: int) -> None:
    for draft in random.Random(0).sample(drafts, min(count, len(drafts))):
        print(f"[{draft.dropped}: {draft.detail}] {draft.wordings[0]} -> {' '.join(draft.answers)}", file=sys.stderr)


def _precision(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ground the sample manual's facts as they are, with another fact's answer, and with a number changed."""
    from dataclasses import replace

    from data_prep.corpus import SAMPLE_CORPORA, load_corpus
    from data_prep.drafts import Draft
    from data_prep.facts import read_facts
    from data_prep.grounding import ground_drafts

    corpus = load_corpus(SAMPLE_CORPORA / "tern-manual")
    texts, chance = corpus.texts(include_new=True), random.Random(0)
    facts = [fact for fact in read_facts(corpus.path / "questions" / "facts.jsonl") if fact.answers]
    facts = [fact for fact in facts if not set(fact.documents) & corpus.new_document_ids()]
    drafts = [
        Draft(fact.id, fact.documents[0], fact.wordings, "", fact.paraphrases, fact.answers, evidence=fact.evidence)
        for fact in facts
    ]
    pages = {page: [draft for draft in drafts if draft.document == page] for page in {d.document for d in drafts}}
    other = [
        replace(draft, answers=chance.choice([x for x in pages[draft.document] if x.answers != draft.answers]).answers)
        for draft in drafts
        if len(pages[draft.document]) > 1
    ]
    changed = [
        replace(draft, answers=(re.sub(r"\d+", lambda found: str(int(found.group()) + 7), draft.answers[0], count=1),))
        for draft in drafts
        if re.search(r"\d", draft.answers[0])
    ]
    embed = None if arguments.no_embedder else _embedder()
    result: dict[str, Any] = {}
    for name, group in (("as written", drafts), ("another fact's answer", other), ("a number changed", changed)):
        _, report = ground_drafts(group, texts, embed=embed)
        if arguments.examples and name == "as written":
            _show(report.dropped, arguments.examples)
        result[name] = {"drafts": report.drafts, "stay": report.kept, "dropped": report.reasons}
    return result


def _embedder() -> Any:
    from rag.embedding import Embedder

    embedder = Embedder(threads=1)
    return lambda texts: embedder.embed_documents(list(texts))


def _corpus(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load, verify and check a corpus of so many documents of the sample manual's length, with as many questions."""
    from data_prep.checks import check_corpus
    from data_prep.corpus import load_corpus, verify_manifest

    with tempfile.TemporaryDirectory() as folder:
        path = _large_corpus(Path(folder) / "large", arguments.documents)
        times: dict[str, tuple[float, float]] = {}
        with _timed(times, "load_corpus"):
            corpus = load_corpus(path)
        with _timed(times, "import haystack (once in a process)"):
            import haystack  # noqa: F401
        for name, step in (
            ("documents()", lambda: len(corpus.documents())),
            ("verify_manifest", lambda: len(verify_manifest(corpus))),
            ("questions of all splits", lambda: sum(len(corpus.questions(s)) for s in ("train", "dev", "test"))),
            ("check_corpus (`versus questions check`)", lambda: len(check_corpus(corpus))),
        ):
            with _timed(times, name):
                step()
        size = sum(len(text) for text in corpus.texts().values())
        return {
            "documents": arguments.documents,
            "characters": size,
            "CPU seconds": {name: round(cpu, 2) for name, (cpu, _) in times.items()},
            "wall seconds": {name: round(wall, 2) for name, (_, wall) in times.items()},
            "peak MiB": peak_bytes() // 2**20,
        }


@contextmanager
def _timed(times: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    """Note the CPU and the wall seconds of what stands inside."""
    cpu, wall = time.process_time(), time.monotonic()
    yield
    times[name] = (time.process_time() - cpu, time.monotonic() - wall)


def _large_corpus(path: Path, documents: int) -> Path:
    """Write a corpus of documents of 300 words, each of its own words, with one fact each, split by the library."""
    import hashlib

    from data_prep.corpus import ManifestEntry, write_manifest, write_settings
    from data_prep.facts import Fact, SplitPlan, split_facts, write_splits
    from data_prep.questions import Evidence

    chance = random.Random(0)
    words = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ru") for b in ("ten", "var", "sol", "pim") for c in range(2_000)]
    (path / "documents").mkdir(parents=True)
    entries, facts = [], []
    for number in range(documents):
        name = f"page-{number:05}"
        body = "\n\n".join(" ".join(chance.choices(words, k=60)).capitalize() + "." for _ in range(5))
        sentence = f"Item {number} weighs {number % 97 + 1} kg."
        text = f"# Page {number}\n\n{sentence}\n\n{body}\n"
        (path / "documents" / f"{name}.md").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        entries.append(ManifestEntry(name, f"Page {number}", f"documents/{name}.md", sha256=digest))
        start = text.index(sentence)
        evidence = (Evidence(name, start, start + len(sentence)),)
        facts.append(Fact(f"f{number}", (f"How heavy is item {number}?",), (), (sentence,), evidence))
    facts += [Fact(f"n{number}", (f"Who bought item {number}?",)) for number in range(documents // 10)]
    write_settings(path, language="en", licence="CC0-1.0", description="Made for measuring.")
    write_manifest(path, entries)
    unseen = frozenset(f"page-{number:05}" for number in range(0, documents, 5))
    write_splits(path / "questions", split_facts(facts, SplitPlan(unseen)))
    return path


if __name__ == "__main__":
    sys.exit(main())

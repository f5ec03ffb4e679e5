"""Conversion of web pages beside its peers: main text, structure, and pages a second, in one run.

    VERSUS_BENCH_DATA=… python benchmarks/conversion.py [--peers FOLDER] [--json]

Main text: the annotated pages of `webpages/trafilatura` (what an extraction must keep and must drop). Structure: the
pages of `webpages/fastapi`, whose markdown source is known, with Versus's profile for such sites and without.
html2text and readability-lxml are not installed with
Versus (html2text is GPL-3): `--peers` names a virtual environment that has them, and they run there as a process of
their own; without it they are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.converting.charsets import decode
from data_prep.converting.html_page import convert_html
from data_prep.errors import DataError

Extract = Callable[[bytes], str]
KINDS = ("headings", "code", "tables", "lists")
PEER_CODE = """
import json, sys, time
name = sys.argv[1]
if name == "html2text":
    import html2text
    def extract(text):
        maker = html2text.HTML2Text(); maker.body_width = 0
        return maker.handle(text)
else:
    from readability import Document
    import lxml.html
    def extract(text):
        return lxml.html.fromstring(Document(text).summary()).text_content()
for line in sys.stdin:
    text = open(json.loads(line), encoding="utf-8", errors="replace").read()
    begun = time.process_time()
    try:
        found = extract(text)
    except Exception:
        found = ""
    print(json.dumps([found, time.process_time() - begun]), flush=True)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run both parts; returns 1 if the data is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a virtual environment with html2text and readability-lxml")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if not os.environ.get("VERSUS_BENCH_DATA"):
        print("set VERSUS_BENCH_DATA to the folder that holds the benchmarks' data sets", file=sys.stderr)
        return 1
    data = Path(os.environ["VERSUS_BENCH_DATA"]) / "webpages"
    rows = main_text_rows(data / "trafilatura", options.peers)
    systems = {"by profile": versus, "no profile": versus_without_profile, "trafilatura": trafilatura_markdown}
    structure = [{"system": name, **structure_row(data / "fastapi", system)} for name, system in systems.items()]
    if options.json:
        print(json.dumps({"main_text": rows, "structure": structure}, indent=2))
        return 0
    for row in rows + structure:
        print(row)
    return 0


def main_text_rows(folder: Path, peers: Path | None) -> list[dict[str, object]]:
    """Return one row of scores a system: Versus, trafilatura in three settings, the peers where they are installed."""
    pages = [json.loads(line) for line in (folder / "annotations.jsonl").read_text(encoding="utf-8").splitlines()]
    paths = [folder / page["html"] for page in pages]
    ours = {"versus": versus, **{f"trafilatura, {name}": extract for name, extract in trafilatura_settings().items()}}
    rows = []
    for name, extract in ours.items():
        extract(paths[0].read_bytes())
        begun = time.process_time()
        texts = [extract(path.read_bytes()) for path in paths]
        rows.append({"system": name, **score(pages, texts), "pages_per_s": len(paths) / (time.process_time() - begun)})
    for name in ("html2text", "readability"):
        if peers is None:
            rows.append({"system": name, "left out": "not installed; --peers FOLDER"})
            continue
        texts, seconds = run_peer(name, peers, paths)
        rows.append({"system": name, **score(pages, texts), "pages_per_s": len(paths) / seconds})
    return rows


def versus(data: bytes) -> str:
    """Return Versus's markdown of a page, nothing where it refuses the page."""
    try:
        return convert_html(decode(data), "page").markdown
    except DataError:
        return ""


def versus_without_profile(data: bytes) -> str:
    """Return Versus's markdown of a page of MkDocs from which the marks are taken that its profile knows it by."""
    return versus(data.replace(b"md-content__inner", b"x").replace(b'content="mkdocs', b'content="x'))


def trafilatura_markdown(data: bytes) -> str:
    """Return trafilatura's markdown with formatting."""
    return trafilatura_settings()["markdown with formatting"](data)


def trafilatura_settings() -> dict[str, Extract]:
    """Return trafilatura's own extraction: as it comes, without comments, and as markdown."""
    from trafilatura import extract

    return {
        "as it comes": lambda data: extract(data) or "",
        "without comments": lambda data: extract(data, include_comments=False) or "",
        "markdown with formatting": lambda data: (
            extract(data, output_format="markdown", include_comments=False, include_formatting=True) or ""
        ),
    }


def run_peer(name: str, peers: Path, paths: Sequence[Path]) -> tuple[list[str], float]:
    """Return a peer's texts and the CPU seconds that it took, reading files left out."""
    feed = "".join(json.dumps(str(path)) + "\n" for path in paths)
    command = [str(peers / "bin" / "python"), "-c", PEER_CODE, name]
    done = subprocess.run(command, input=feed, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [text for text, _ in rows], sum(seconds for _, seconds in rows)


def score(pages: Sequence[dict[str, list[str]]], texts: Sequence[str]) -> dict[str, float]:
    """Return precision, recall and F of the segments that must be kept and dropped, markup of markdown taken out."""
    counts: collections.Counter[str] = collections.Counter()
    for page, text in zip(pages, texts, strict=True):
        found = words(text)
        for kind, hit, miss in (("with", "kept", "lost"), ("without", "noise", "dropped")):
            counts.update(hit if words(segment) in found else miss for segment in page[kind])
    precision = counts["kept"] / max(counts["kept"] + counts["noise"], 1)
    recall = counts["kept"] / max(counts["kept"] + counts["lost"], 1)
    f_score = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f_score": round(f_score, 4)}


def words(text: str) -> str:
    """Return text without markdown's marks and picture links, white space collapsed: the same for every system."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", " ", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?m)^\s*(?:[-*+]|\d+\.|#+|>)\s+", "", text).replace("&lt;", "<").replace("|", " ")
    return re.sub(r"\s+", " ", re.sub(r"[*_`]|\\(?=[\W_])", "", text))


def structure_row(folder: Path, system: Extract) -> dict[str, object]:
    """Return, for headings, code, tables and lists, the shares of the source's items found, and of ours in the source.

    The second leaves out pages of which the source holds only an order to generate text from code (`:::`).
    """
    totals: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    pages = [json.loads(line) for line in (folder / "pages.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = 0.0
    for page in pages:
        data = (folder / page["html"]).read_bytes()
        begun = time.process_time()
        ours = system(data)
        seconds += time.process_time() - begun
        written = (folder / page["md"]).read_text(encoding="utf-8")
        generated = re.search(r"(?m)^::: ", written) is not None
        source = items(source_markdown(written))
        made = items(ours)
        for kind in KINDS:
            both = (source[kind] & made[kind]).total()
            totals[kind].update(source=source[kind].total(), both=both)
            if not generated:
                totals[kind].update(made=made[kind].total(), right=both)
    row: dict[str, object] = {"pages": len(pages), "pages_per_s": round(len(pages) / seconds, 1)}
    for kind, count in totals.items():
        row[kind] = {
            "of the source found": round(count["both"] / max(count["source"], 1), 4),
            "of ours in the source": round(count["right"] / max(count["made"], 1), 4),
            "items": count["source"],
        }
    return row


def source_markdown(text: str) -> str:
    """Return mkdocs' markdown with the forms that its own renderer resolves written as a page shows them."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^/{3,}.*$", "", text)
    return re.sub(r"\{[.:#][^}]*\}|\{ *#[^}]*\}", "", text)


def items(markdown: str) -> dict[str, collections.Counter[str]]:
    """Return the headings, code blocks, table rows and list items of a markdown text, each reduced to its words."""
    found: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    fence: str | None = None
    code: list[str] = []
    item: list[str] = []
    for raw in [*markdown.split("\n"), ""]:
        line = re.sub(r"^(?:> ?)+", "", raw)
        opening = re.match(r"\s*(`{3,}|~{3,})", line)
        if fence is None and opening:
            fence, code = opening.group(1), []
        elif fence is not None and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            found["code"][letters("\n".join(code))] += 1
            fence = None
        elif fence is not None:
            code.append(line)
        else:
            item = _line(line, item, found)
    return found


def _line(line: str, item: list[str], found: dict[str, collections.Counter[str]]) -> list[str]:
    """Count one line outside code; returns the open list item."""
    bullet = re.match(r"\s*(?:[-*+]|\d+[.)])\s+(.*)", line)
    if item and (bullet or not line.strip() or line.startswith("#")):
        found["lists"][letters(" ".join(item))] += 1
        item = []
    if bullet:
        return [bullet.group(1)]
    if heading := re.match(r"(#{1,6})\s+(.*)", line):
        found["headings"][f"{len(heading.group(1))} {letters(heading.group(2))}"] += 1
    elif line.strip().startswith("|") and letters(line):
        found["tables"]["|".join(letters(cell) for cell in line.strip().strip("|").split("|"))] += 1
    elif item:
        return [*item, line.strip()]
    return item


def letters(text: str) -> str:
    """Return the letters and digits of a text, links and tags reduced to what a reader sees."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"</?[a-zA-Z][^>]*>|&lt;|:[a-z_]+:", "", text)
    return "".join(re.findall(r"\w+", text.casefold())).replace("_", "")


if __name__ == "__main__":
    sys.exit(main())

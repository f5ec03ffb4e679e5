"""When retrieval is too unsure to answer: the threshold of an index, calibrated on the corpus's dev questions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from rag.config import RagConfig

if TYPE_CHECKING:
    from rag.refining import Search


ANSWERED_AT_LEAST = 0.9
"""The trade-off chosen: of the answerable dev questions at most a tenth may be declined."""


def calibrated(config: RagConfig, retriever: Search, corpus: Corpus) -> RagConfig:
    """Return `config` with the threshold under which to decline, found on the corpus's dev questions.

    A threshold that is set stays. Without dev questions of both kinds, answerable and not, nothing is declined. The
    calibration is kept beside the index, with its ROC AUC and what it gains and costs, until index, dev questions or
    settings change.
    """
    dev = corpus.path / "questions" / "dev.jsonl"
    if config.abstain_below is not None or not dev.exists():
        return config
    made_from = (
        f"{retriever.store.generation} {hashlib.sha256(dev.read_bytes()).hexdigest()} {config!r} {ANSWERED_AT_LEAST}"
    )
    key = hashlib.sha256(made_from.encode()).hexdigest()
    path = retriever.store.path.parent / "abstention.json"
    known = _read(path)
    if key not in known:
        known = {**known, key: _calibrate(config, retriever, corpus)}
        write_text(path, json.dumps(known, indent=1) + "\n")
    threshold = known[key].get("threshold")
    return config if threshold is None else replace(config, abstain_below=threshold)


def _calibrate(config: RagConfig, retriever: Search, corpus: Corpus) -> dict[str, float]:
    from rag.answering import RagAnswerer, calibrate_abstention

    questions = corpus.questions("dev")
    if len({question.answerable for question in questions}) < 2:
        return {}
    answerer = RagAnswerer(retriever, None, config, language=corpus.language)
    return asdict(calibrate_abstention(questions, answerer, answered_at_least=ANSWERED_AT_LEAST))


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Return the calibrations kept at `path`; a damaged file counts as none, since it is made anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}

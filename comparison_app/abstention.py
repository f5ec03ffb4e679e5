"""When retrieval is too unsure to answer: the threshold of an index, calibrated on the corpus's dev questions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from rag.abstention import AbstentionCalibration
from rag.config import RagConfig

if TYPE_CHECKING:
    from rag.refining import Search


ANSWERED_AT_LEAST = 0.9
"""The trade-off chosen: of the answerable dev questions at most a tenth may be declined."""

_MADE_BY = "sentence, cosine, coverage, margin"
"""The signals of the confidence: what was calibrated with others is calibrated anew."""


def calibration_of(config: RagConfig, retriever: Search, corpus: Corpus) -> AbstentionCalibration | None:
    """Return the confidence under which to decline, found on the corpus's dev questions, with its weights and ROC.

    None where `config` sets a threshold itself, or where there are no dev questions of both kinds, answerable and not:
    then nothing is calibrated. The calibration is kept beside the index until index, dev questions or settings change.
    """
    dev = corpus.path / "questions" / "dev.jsonl"
    if config.abstain_below is not None or not dev.exists():
        return None
    parts = (retriever.store.generation, hashlib.sha256(dev.read_bytes()).hexdigest(), config, ANSWERED_AT_LEAST)
    key = hashlib.sha256(repr((*parts, _MADE_BY)).encode()).hexdigest()
    path = retriever.store.path.parent / "abstention.json"
    known = _read(path)
    if key in known:
        try:
            return AbstentionCalibration.from_dict(known[key]) if known[key] else None
        except (KeyError, TypeError, ValueError):  # damaged: it is made anew
            pass
    found = _calibrate(config, retriever, corpus)
    write_text(path, json.dumps({**known, key: found.as_dict() if found else {}}, indent=1) + "\n")
    return found


def described(found: AbstentionCalibration) -> str:
    """Return a calibration as a sentence."""
    return (
        f"declines under a confidence of {found.threshold:.2f}, calibrated on {found.answerable + found.unanswerable} "
        f"dev questions: ROC AUC {found.roc_auc:.2f}; {100 * found.answered_right:.0f} % of the answerable ones are "
        f"still answered, {100 * found.declined_right:.0f} % of the unanswerable declined"
    )


def _calibrate(config: RagConfig, retriever: Search, corpus: Corpus) -> AbstentionCalibration | None:
    from rag.abstention import calibrate_abstention
    from rag.answering import RagAnswerer

    questions = corpus.questions("dev")
    if len({question.answerable for question in questions}) < 2:
        return None
    answerer = RagAnswerer(retriever, None, config, language=corpus.language)
    return calibrate_abstention(questions, answerer, answered_at_least=ANSWERED_AT_LEAST)


def _read(path: Path) -> dict[str, Any]:
    """Return the calibrations kept at `path`; a damaged file counts as none, since it is made anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}

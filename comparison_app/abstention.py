"""When retrieval is too unsure to answer: the threshold of an index, calibrated on the corpus's dev questions."""

from __future__ import annotations

import hashlib
import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from data_prep.errors import DataError
from rag.abstention import PRIOR, AbstentionCalibration, Signals
from rag.config import RagConfig

if TYPE_CHECKING:
    from rag.refining import Search


ANSWERED_AT_LEAST = 0.9
"""The trade-off chosen: of the answerable dev questions at most a tenth may be declined."""

_MADE_BY = (Signals._fields, PRIOR)
"""The signals of the confidence and where their weights begin: what was calibrated with others is calibrated anew."""


def calibration_of(config: RagConfig, retriever: Search, corpus: Corpus) -> AbstentionCalibration | None:
    """Return the confidence under which to decline, found on the corpus's dev questions, with its weights and ROC.

    None where `config` sets a threshold itself, or where there are no dev questions of both kinds, answerable and not:
    then nothing is calibrated. The calibration is kept beside the index until index, dev questions or settings change;
    where nothing can be written it is made each time.
    """
    dev = corpus.path / "questions" / "dev.jsonl"
    if config.abstain_below is not None or not dev.exists():
        return None
    parts = (retriever.store.generation, hashlib.sha256(dev.read_bytes()).hexdigest(), config, ANSWERED_AT_LEAST)
    key = hashlib.sha256(repr((*parts, *_MADE_BY)).encode()).hexdigest()
    path = retriever.store.path.parent / "abstention.json"
    known = _read(path)
    if key in known:
        return AbstentionCalibration.from_dict(known[key]["found"]) if known[key]["found"] else None
    found = _calibrate(config, retriever, corpus)
    entry = found.as_dict() if found else None
    with suppress(DataError):
        write_text(path, json.dumps({**known, key: {"found": entry, "check": _check(key, entry)}}, indent=1) + "\n")
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
    """Return the sound calibrations kept at `path`; damaged ones are left out, since they are made anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8")).items()
        return {key: held for key, held in kept if isinstance(held, dict) and _is_sound(key, held)}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_sound(key: str, held: dict[str, Any]) -> bool:
    return "found" in held and held.get("check") == _check(key, held["found"])


def _check(key: str, entry: Any) -> int:
    return zlib.crc32(f"{key} {json.dumps(entry, sort_keys=True)}".encode())

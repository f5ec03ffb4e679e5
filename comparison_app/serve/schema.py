"""What the endpoint gives: OpenAI's chat format, with the sources of an answer beside it."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from comparison_app.passages import Passage, Picture
from comparison_app.predictions import Prediction
from data_prep.corpus import Corpus


def models(names: list[str], started: float) -> dict[str, Any]:
    """Return the list of models: one for each arm."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": int(started), "owned_by": "versus"} for name in names],
    }


def sources(passages: list[Passage], corpus: Corpus) -> list[dict[str, Any]]:
    """Return passages as the response's `sources`: where each comes from, its text, and what the answer rests on.

    `page` and `url` lead to the place in the source where that is known; a picture's `url` is a path of this endpoint.
    `source`, `document` and `metadata` follow the shape in which Open WebUI shows citations.
    """
    return [
        {
            "id": passage.document,
            "title": passage.title,
            "section": passage.section,
            "page": passage.page,
            "start": passage.start,
            "end": passage.end,
            "score": passage.score,
            "url": passage.link,
            "quotes": [text for text, marked in passage.pieces if marked],
            "pictures": [
                {"title": picture.words, "url": _picture_path(picture, corpus)} for picture in passage.pictures
            ],
            "source": {"name": passage.where, **({"url": passage.link} if passage.link else {})},
            "document": [passage.text],
            "metadata": [{"source": passage.document, "start": passage.start, "end": passage.end}],
        }
        for passage in passages
    ]


def _picture_path(picture: Picture, corpus: Corpus) -> str:
    """Return under which path of this endpoint a picture is found."""
    name = picture.file.relative_to((corpus.path / "assets").resolve()).as_posix()
    return f"/v1/pictures/{quote(name)}?corpus={quote(corpus.name)}"


def completion(model: str, prediction: Prediction, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a whole answer as a chat completion."""
    message = {"role": "assistant", "content": prediction.answer, "refusal": None}
    return {
        "id": new_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": usage(prediction),
        "sources": found,
        "versus": facts(prediction),
    }


def chunk(identity: str, model: str, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one piece of a streamed answer."""
    return {
        "id": identity,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
        **more,
    }


def usage(prediction: Prediction) -> dict[str, int]:
    """Return the tokens of an answer; an arm that counts none has zero."""
    read, written = prediction.prompt_tokens or 0, prediction.completion_tokens or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def facts(prediction: Prediction) -> dict[str, Any]:
    """Return what OpenAI's format has no place for."""
    return {
        "abstained": prediction.abstained,
        "seconds": round(prediction.seconds, 4),
        "cost": prediction.cost,
        "sentences": [asdict(sentence) for sentence in prediction.sentences],
        "unsupported": [text for text, unsupported in prediction.pieces if unsupported],
    }


def failure(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's format."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def new_id() -> str:
    """Return an id for a completion."""
    return f"chatcmpl-{uuid.uuid4().hex[:24]}"

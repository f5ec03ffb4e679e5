"""Chat completions: an arm's answer whole, or piece by piece as server-sent events, with its sources."""

# FastAPI reads the annotations of the routes when they are declared, so they are not postponed here.

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from comparison_app.asking import check_question
from comparison_app.errors import ComparisonError
from comparison_app.passages import passages
from comparison_app.predictions import Prediction
from comparison_app.serve import schema
from data_prep.corpus import Corpus
from data_prep.questions import Question

if TYPE_CHECKING:
    from fastapi import APIRouter

    from comparison_app.serve.api import Service

_SOURCES = 5


def chat_routes(service: "Service") -> "APIRouter":
    """Return the route of chat completions."""
    from fastapi import APIRouter, Body
    from fastapi.responses import JSONResponse, StreamingResponse

    router = APIRouter()

    @router.post("/chat/completions", response_model=None)
    def complete(body: Annotated[dict[str, Any], Body()]) -> JSONResponse | StreamingResponse:
        corpus, name = service.model(str(body.get("model") or ""))
        question = question_of(body)
        arm = service.pool.arm(corpus, name)
        if body.get("stream"):
            events = _events(service, corpus, str(body["model"]), arm.stream(question), _wants_usage(body))
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        prediction = next(iter(arm.answer([question])))
        if prediction.error is not None:
            return JSONResponse(schema.failure(prediction.error, "server_error"), 502)
        found = _sources(service, corpus, prediction)
        return JSONResponse(schema.completion(str(body["model"]), prediction, found))

    return router


def question_of(body: dict[str, Any]) -> Question:
    """Return the last user message as a question; `about` in the body names the one document it is asked of."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ComparisonError('messages must be a list of {"role", "content"}')
    said = [message.get("content") for message in messages if message.get("role") == "user"]
    if not said:
        raise ComparisonError("messages hold none of the role user, so there is nothing to answer")
    text = _text(said[-1])
    check_question(text)
    about = body.get("about")
    return Question("asked", text, about=about if isinstance(about, str) and about else None)


def _text(content: Any) -> str:
    """Return a message's text; of a list of parts, those of the type text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def _wants_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    return bool(isinstance(options, dict) and options.get("include_usage"))


def _events(
    service: "Service", corpus: Corpus, model: str, pieces: Iterator[str | Prediction], wants_usage: bool
) -> Iterator[str]:
    """Yield an answer as server-sent events; the last chunk before the end carries the sources."""
    identity = schema.new_id()
    yield _event(schema.chunk(identity, model, {"role": "assistant", "content": ""}))
    said = ""
    for piece in pieces:
        if isinstance(piece, str):
            said += piece
            yield _event(schema.chunk(identity, model, {"content": piece}))
        elif piece.error is not None:
            yield _event(schema.failure(piece.error, "server_error"))
        else:
            rest = {"content": piece.answer} if not said and piece.answer else {}
            more = {"sources": _sources(service, corpus, piece), "versus": schema.facts(piece)}
            yield _event(schema.chunk(identity, model, rest, "stop", **more))
            if wants_usage:
                yield _event({**schema.chunk(identity, model, {}, usage=schema.usage(piece)), "choices": []})
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _sources(service: "Service", corpus: Corpus, prediction: Prediction) -> list[dict[str, Any]]:
    if not prediction.documents:
        return []
    found = passages(prediction, corpus, lambda name: service.library.text(corpus, name), _SOURCES)
    return schema.sources(found, corpus)

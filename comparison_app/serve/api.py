"""The application behind `versus serve`: FastAPI routes over the arm pool and the library.

`POST /v1/chat/completions` asks an arm the last user message; an earlier conversation is not carried over, since every
arm answers one question. A model's name is an arm's, or `CORPUS/ARM` for a corpus other than the one served.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comparison_app.arm_pool import ArmPool
from comparison_app.errors import ComparisonError
from comparison_app.library import Library
from comparison_app.serve import schema
from data_prep.corpus import Corpus
from data_prep.errors import VersusError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError


@dataclass(frozen=True)
class Service:
    """What the routes share. `key`: the bearer token that callers must send, None where none is asked for."""

    pool: ArmPool
    library: Library
    corpus: str | None = None
    key: str | None = None

    def served(self, name: str | None = None) -> Corpus:
        """Return the corpus served, or another one of the workspace by its name."""
        if name is None:
            return self.pool.workspace.corpus(self.corpus)
        known = {info.name: info.path for info in self.library.corpora()}
        own = self.pool.workspace.corpus(self.corpus)
        if name == own.name:
            return own
        if name not in known:
            raise ComparisonError(f"no corpus {name!r}; there are: {', '.join(sorted(known))}")
        return self.pool.workspace.corpus(str(known[name]))

    def model(self, name: str) -> tuple[Corpus, str]:
        """Return the corpus and the arm that a model's name stands for."""
        corpus, _, arm = name.rpartition("/")
        return self.served(corpus or None), arm


def create_app(service: Service) -> FastAPI:
    """Return the application; nothing is loaded before the first question."""
    from fastapi import Depends, FastAPI, Header, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException as StarletteHTTPException

    from comparison_app.serve.chat import chat_routes
    from comparison_app.serve.documents import document_routes
    from comparison_app.serve.limits import BodyLimit

    app = FastAPI(
        title="Versus",
        description="Every arm as a model, and the documents behind them.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit)
    started = time.time()

    def authorised(authorization: str | None = Header(default=None)) -> None:
        given = (authorization or "").removeprefix("Bearer ").strip()
        if service.key is not None and not hmac.compare_digest(given.encode(), service.key.encode()):
            raise HTTPException(401, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`")

    @app.exception_handler(VersusError)
    async def mendable(request: Request, error: VersusError) -> JSONResponse:
        missing = str(error).startswith(("no arm", "no corpus")) or "has no document" in str(error)
        return JSONResponse(schema.failure(str(error)), 404 if missing else 400)

    @app.exception_handler(StarletteHTTPException)  # of which FastAPI's is a kind; unknown routes raise this one
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse(schema.failure(str(error.detail)), error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(schema.failure(_problems(error)), 400)

    @app.get("/health")
    def health() -> dict[str, Any]:
        corpus = service.served()
        return {"status": "ok", "corpus": corpus.name, "indexed": service.library.is_indexed(corpus)}

    @app.get("/v1/models", dependencies=[Depends(authorised)])
    def list_models() -> dict[str, Any]:
        return schema.models([spec.name for spec in service.pool.specs(service.served())], started)

    app.include_router(chat_routes(service), prefix="/v1", dependencies=[Depends(authorised)])
    app.include_router(document_routes(service), prefix="/v1", dependencies=[Depends(authorised)])
    return app


def _problems(error: RequestValidationError) -> str:
    """Return in one line what is wrong with a request, and where in it."""
    found = []
    for item in error.errors():
        if item["type"] == "json_invalid":
            found.append(f"the body is not JSON ({item.get('ctx', {}).get('error', item['msg'])})")
        else:
            found.append(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}")
    return "; ".join(found)

"""The documents API: corpora and their documents listed, searched, uploaded, changed, deleted, indexed again."""

# FastAPI reads the annotations of the routes when they are declared, so they are not postponed here.

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from comparison_app.library import Reindexing, check_name, delete_document, info, read_document, write_document
from comparison_app.passages import corpus_picture
from comparison_app.uploads import LARGEST_UPLOAD, Upload, take_in
from data_prep.corpus import Corpus, load_corpus
from data_prep.places import Place, place_of

if TYPE_CHECKING:
    from fastapi import APIRouter
    from haystack import Document

    from comparison_app.serve.api import Service


_HARMLESS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
"""Headers under which a drawing (SVG) runs nothing and loads nothing."""


def document_routes(service: "Service") -> "APIRouter":
    """Return the routes; `corpus` in the query names another corpus than the one served."""
    from fastapi import APIRouter, Body, HTTPException, Query, UploadFile
    from fastapi.responses import FileResponse

    router = APIRouter()

    @router.get("/corpora")
    def corpora() -> list[dict[str, Any]]:
        return [{**asdict(item), "path": str(item.path)} for item in service.library.corpora()]

    @router.get("/documents")
    def documents(corpus: str | None = None) -> list[dict[str, Any]]:
        served = service.served(corpus)
        return [_entry(served, name) for name in served.document_ids(include_new=True)]

    @router.get("/documents/{name}")
    def document(name: str, corpus: str | None = None) -> dict[str, Any]:
        served = service.served(corpus)
        return {**_entry(served, name), "text": read_document(served, name)}

    @router.get("/pictures/{path:path}", response_model=None)
    def picture(path: str, corpus: str | None = None) -> FileResponse:
        served = service.served(corpus)
        found = corpus_picture(served, f"assets/{path}")
        if found is None:
            raise HTTPException(404, f"corpus {served.name} has no picture {path!r}")
        return FileResponse(found.file, media_type=found.media_type, headers=_HARMLESS)

    @router.put("/documents/{name}")
    def put_document(name: str, text: Annotated[str, Body(embed=True)], corpus: str | None = None) -> dict[str, Any]:
        served = service.served(corpus)
        return asdict(write_document(served, name, text))

    @router.delete("/documents/{name}")
    def remove(name: str, corpus: str | None = None) -> dict[str, Any]:
        delete_document(service.served(corpus), name)
        return {"deleted": name}

    @router.post("/documents")
    def upload(files: list[UploadFile], corpus: str) -> dict[str, Any]:
        folder = service.pool.workspace.corpora / check_name(corpus)
        room, taken = LARGEST_UPLOAD + 1, []
        for file in files:
            data = file.file.read(room)
            room -= len(data)
            taken.append(Upload(file.filename or "document", data))
        return asdict(take_in(taken, folder))

    @router.get("/search")
    def search(
        q: str, corpus: str | None = None, top_k: Annotated[int, Query(ge=1, le=100)] = 10, about: str | None = None
    ) -> list[dict[str, Any]]:
        served = service.served(corpus)
        found = service.library.search(served, q, about=about, top_k=top_k)
        return [_found(served, chunk) for chunk in found]

    @router.post("/index", status_code=202)
    def index(corpus: str | None = None, include_new: bool = False) -> dict[str, Any]:
        return _state(service.library.reindex(service.served(corpus), include_new=include_new))

    @router.get("/index")
    def index_state(corpus: str | None = None) -> dict[str, Any]:
        served = service.served(corpus)
        running = service.library.reindexing(served)
        state = _state(running) if running else {"state": "none was started"}
        return {**state, "indexed": service.library.is_indexed(served), **_glance(served)}

    return router


def _entry(corpus: Corpus, name: str) -> dict[str, Any]:
    entry = corpus.manifest.get(name)
    return {"id": name, "title": entry.title if entry else name, "source": entry.source if entry else None}


def _found(corpus: Corpus, chunk: "Document") -> dict[str, Any]:
    """Return a chunk with the place in its source where it begins."""
    entry = corpus.manifest.get(str(chunk.meta.get("document")))
    place = place_of(entry, int(chunk.meta.get("start", 0))) if entry else Place()
    keys = ("document", "title", "section", "start", "end", "scores")
    known = {key: chunk.meta.get(key) for key in keys}
    return {**known, "page": place.page, "url": place.link, "text": chunk.content}


def _state(running: Reindexing) -> dict[str, Any]:
    state = "running" if not running.finished.is_set() else "failed" if running.error else "done"
    report = asdict(running.report) if running.report else None
    progress = {"done": running.done, "total": running.total}
    return {"state": state, **progress, "report": report, "error": running.error}


def _glance(corpus: Corpus) -> dict[str, Any]:
    found = info(load_corpus(corpus.path))
    return {"corpus": found.name, "documents": found.documents, "editable": found.editable}

"""The same index on Milvus: dense vectors and Milvus's BM25 function, both searched, fused by our own code.

`milvus://HOST:PORT/NAME` is a server, `milvus:///FILE.db/NAME` a Milvus Lite file (one process at a time). Chunks lie
in the collection NAME, kept by `milvus_haystack`; documents' hashes and the settings lie in NAME_documents. BM25 gets
the terms of our own tokenizer, so that codes, numbers with units and stems are found alike in both stores.

Unlike the embedded store, a reader may see a re-index half done: each document is replaced on its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.lexical import Tokenizer
from rag.milvus_rows import address_parts, analysed, chunk_collection, explained, incoming, make_rows, outgoing

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from haystack.document_stores.types import DuplicatePolicy
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_SETTINGS = "#settings"
"""Id of the row of settings among the documents' rows."""
_PAGE = 1000
"""Rows per request."""


class MilvusStore:
    """A Haystack `DocumentStore` of chunks on Milvus; opening connects at the first use.

    `path` is where files that belong to the index lie on this machine. Raises `StoreError` where the address is wrong
    or nobody answers there.
    """

    def __init__(self, address: str, path: Path | str = "index", *, heading_context: bool = True) -> None:
        self.address = address
        self.path = Path(path)
        self.heading_context = heading_context
        self.uri, self.name = address_parts(address)
        self._chunks: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to open the same store; the token stays in the environment."""
        settings = {"address": self.address, "path": str(self.path), "heading_context": self.heading_context}
        return {"type": "rag.milvus.MilvusStore", "init_parameters": settings}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MilvusStore:
        """Open the store that `to_dict` described."""
        return cls(**data["init_parameters"])

    @property
    def chunks(self) -> Any:
        """The `milvus_haystack` store of the chunks."""
        if self._chunks is None:
            with explained(self.address):
                self._chunks = chunk_collection(self.uri, self.name)
                make_rows(self._chunks.client, self._rows)
        return self._chunks

    @property
    def client(self) -> Any:
        """The Milvus client."""
        return self.chunks.client

    @property
    def _rows(self) -> str:
        return f"{self.name}_documents"

    @property
    def generation(self) -> int:
        """Number of the last finished re-index; 0 where there was none."""
        return int(self.setting("generation", "0"))

    def setting(self, key: str, default: str = "") -> str:
        """Return a value that the indexer noted: `generation`, `embedder`, `chunk_hash`, `language`."""
        return str(self.settings().get(key, default))

    def settings(self) -> dict[str, str]:
        """Return all values that the indexer noted."""
        with explained(self.address):
            found = self.client.get(self._rows, ids=[_SETTINGS], output_fields=["note"])
        return dict(json.loads(found[0]["note"])) if found else {}

    def count_documents(self) -> int:
        """Return the number of chunks."""
        with explained(self.address):
            return int(self.chunks.count_documents())

    def source_hashes(self) -> dict[str, str]:
        """Return id → SHA-256 of every source document that is wholly indexed."""
        rows = self._query(self._rows, f'id != "{_SETTINGS}"', ["id", "note"])
        return {row["id"]: row["note"] for row in rows}

    def count_sources(self) -> int:
        """Return the number of source documents."""
        return len(self.source_hashes())

    def source(self, document_id: str) -> Document | None:
        """Return None: documents are not kept here, only their chunks."""
        return None

    def chunks_of(self, document_id: str) -> list[Document]:
        """Return the chunks of one source document, in reading order."""
        found = self.filter_documents({"field": "meta.document", "operator": "==", "value": document_id})
        return sorted(found, key=lambda chunk: int(chunk.meta.get("start", 0)))

    def vectors_of(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return id → unit vector, float32, of those chunks that are there."""
        import numpy as np

        rows = self._get(ids, ["vector"])
        return {row["id"]: np.asarray(row["vector"], dtype=np.float32) for row in rows}

    def embeddings_of(self, document_ids: Sequence[str]) -> dict[str, list[tuple[str, str, Vectors]]]:
        """Return document → (chunk id, key of what was embedded, vector) of what is indexed of it."""
        import numpy as np

        found: dict[str, list[tuple[str, str, Vectors]]] = {}
        expression = f"document in {json.dumps(list(document_ids), ensure_ascii=False)}"
        for row in self._query(self.name, expression, ["id", "document", "embedding_key", "vector"]):
            vector = np.asarray(row["vector"], dtype=np.float32)
            found.setdefault(row["document"], []).append((row["id"], row["embedding_key"], vector))
        return found

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the chunks that match Haystack `filters` (all without)."""
        rows = self._query(self.name, self.expression(filters), ["text", "meta_json"])
        return [incoming(row) for row in rows]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy | None = None) -> int:
        """Write chunks that have embeddings; return how many were written.

        Raises Haystack's `DuplicateDocumentError` on a known id, unless `policy` is SKIP or OVERWRITE, and
        `StoreError` for a chunk without an embedding or longer than Milvus takes.
        """
        from haystack.document_stores.errors import DuplicateDocumentError

        wanted = policy.value if policy else "none"
        latest = list({document.id: document for document in documents}.values())
        known = {row["id"] for row in self._get([document.id for document in latest], ["id"])}
        if wanted not in ("skip", "overwrite") and (known or len(latest) < len(documents)):
            raise DuplicateDocumentError(f"{self.address}: ids that are there already: {', '.join(sorted(known)[:5])}")
        kept = [document for document in latest if wanted == "overwrite" or document.id not in known]
        return self.put_chunks(kept)

    def put_chunks(self, chunks: Sequence[Document], keys: Sequence[str] | None = None) -> int:
        """Write or replace embedded chunks, each with the key of what was embedded; return their number."""
        from haystack.document_stores.types import DuplicatePolicy

        tokenizer = Tokenizer(self.setting("language", "en"))
        rows = [
            outgoing(chunk, key, tokenizer, self.heading_context, self.address)
            for chunk, key in zip(chunks, keys or [""] * len(chunks), strict=True)
        ]
        with explained(self.address):
            return int(self.chunks.write_documents(rows, DuplicatePolicy.OVERWRITE)) if rows else 0

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete the chunks of those ids; unknown ids are passed over."""
        if document_ids and self.has_chunks:
            with explained(self.address):
                self.client.delete(self.name, ids=list(document_ids))

    def put_rows(self, notes: dict[str, str]) -> None:
        """Note the hash of documents that are wholly indexed."""
        rows = [{"id": identity, "note": note, "vector": [0.0, 0.0]} for identity, note in notes.items()]
        with explained(self.address):
            for first in range(0, len(rows), _PAGE):
                self.client.upsert(self._rows, rows[first : first + _PAGE])

    def put_settings(self, **values: str) -> None:
        """Note settings beside those that are there."""
        self.put_rows({_SETTINGS: json.dumps({**self.settings(), **values})})

    def forget(self, document_ids: Sequence[str]) -> None:
        """Delete documents with all their chunks."""
        with explained(self.address):
            for first in range(0, len(document_ids), _PAGE):
                batch = list(document_ids[first : first + _PAGE])
                if self.has_chunks:
                    names = json.dumps(batch, ensure_ascii=False)
                    self.client.delete(self.name, filter=f"document in {names}")
                self.client.delete(self._rows, ids=batch)

    def drop(self) -> None:
        """Delete the whole index."""
        with explained(self.address):
            for name in (self.name, self._rows):
                self.client.drop_collection(name)
        self._chunks = None

    @property
    def has_chunks(self) -> bool:
        """Whether anything was ever written."""
        return bool(self.client.has_collection(self.name))

    def expression(self, filters: dict[str, Any] | None) -> str:
        """Return Haystack `filters` in Milvus's language; raises Haystack's `FilterError` for what it cannot say."""
        from milvus_haystack.filters import parse_filters

        return str(parse_filters(filters)) if filters else ""

    def search(self, field: str, data: Sequence[Any], size: int, expression: str) -> list[list[dict[str, Any]]]:
        """Return for each item of `data` the hits in `field` (`vector` or `sparse`), best first.

        A hit has `id`, `distance`, and under `entity` the chunk's text, metadata and vector.
        """
        if not self.has_chunks:
            return [[] for _ in data]
        metric = {"metric_type": "BM25"} if field == "sparse" else {"metric_type": "IP", "params": {"ef": 2 * size}}
        with explained(self.address):
            found = self.client.search(
                self.name, data=list(data), anns_field=field, search_params=metric, limit=size, filter=expression,
                output_fields=["text", "meta_json", "vector"],
            )  # fmt: skip
        return [list(hits) for hits in found]

    def holding(self, term: str) -> int:
        """Return how many chunks hold a term of our tokenizer."""
        if not self.has_chunks:
            return 0
        with explained(self.address):
            rows = self.client.query(
                self.name, filter=f"TEXT_MATCH(terms, '{analysed([term])}')", output_fields=["count(*)"]
            )
        return int(rows[0]["count(*)"])

    def _get(self, ids: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        if not ids or not self.has_chunks:
            return []
        with explained(self.address):
            pages = (list(ids[first : first + _PAGE]) for first in range(0, len(ids), _PAGE))
            return [row for page in pages for row in self.client.get(self.name, ids=page, output_fields=fields)]

    def _query(self, collection: str, expression: str, fields: list[str]) -> list[dict[str, Any]]:
        with explained(self.address):
            if not self.client.has_collection(collection):
                return []
            return list(_pages(self.client, collection, expression, fields))


def _pages(client: Any, collection: str, expression: str, fields: list[str]) -> Iterator[dict[str, Any]]:
    iterator = client.query_iterator(collection, batch_size=_PAGE, filter=expression, output_fields=fields)
    try:
        while page := iterator.next():
            yield from page
    finally:
        iterator.close()

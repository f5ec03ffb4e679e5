"""What lies on Milvus: its collections and their fields, and a chunk as a row of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import StoreError
from rag.lexical import Tokenizer
from rag.prompts import indexed_text

if TYPE_CHECKING:
    from haystack import Document

TOKEN_VARIABLE = "MILVUS_TOKEN"
"""Environment variable that holds the server's token or `user:password`, where it wants one."""

_RESERVED = frozenset({"id", "terms", "vector", "sparse", "text", "meta_json", "embedding_key"})
_LONGEST = 60_000
"""Bytes of one text field that Milvus takes, with some room."""


def address_parts(address: str) -> tuple[str, str]:
    """Return the client's address and the collection's name."""
    match = re.fullmatch(r"milvus://(?:([^/\s]+)|(/\S+\.db))/(\w+)", address)
    if not match:
        raise StoreError(
            f"store {address!r}: must be milvus://HOST:PORT/NAME, or milvus:///FILE.db/NAME for a local file"
        )
    host, file, name = match.groups()
    return (f"http://{host}" if host else str(file)), str(name)


def chunk_collection(uri: str, name: str) -> Any:
    """Open the collection of chunks as a `milvus_haystack` store, made if it is not there."""
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
    from haystack.utils import Secret
    from milvus_haystack import MilvusDocumentStore
    from milvus_haystack.function import BM25BuiltInFunction

    local = not uri.startswith("http")
    connection: dict[str, Any] = {"uri": uri, "timeout": 20}
    if os.environ.get(TOKEN_VARIABLE):
        connection["token"] = Secret.from_env_var(TOKEN_VARIABLE)
    if local:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
    graph = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
    function = BM25BuiltInFunction(
        input_field_names="terms",
        output_field_names="sparse",
        analyzer_params={"tokenizer": "standard"},
        enable_match=True,
        function_name="bm25",
    )
    return MilvusDocumentStore(
        collection_name=name,
        connection_args=connection,
        consistency_level="Strong",
        text_field="terms",
        vector_field="vector",
        sparse_vector_field="sparse",
        builtin_function=function,
        index_params={"metric_type": "IP", **({"index_type": "FLAT", "params": {}} if local else graph)},
    )


def make_rows(client: Any, name: str) -> None:
    """Make the collection of documents' hashes, or load it; Milvus wants a vector in every collection."""
    if client.has_collection(name):
        client.load_collection(name)
        return
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(field_name="id", datatype=DataType.VARCHAR, is_primary=True, max_length=2000)
    schema.add_field(field_name="note", datatype=DataType.VARCHAR, max_length=_LONGEST)
    schema.add_field(field_name="vector", datatype=DataType.FLOAT_VECTOR, dim=2)
    index = client.prepare_index_params()
    index.add_index(field_name="vector", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def analysed(terms: Iterable[str]) -> str:
    """Return terms as a text that any word analyser cuts into the same terms: letters and digits only."""
    return " ".join("".join(c if c.isalnum() else f"x{ord(c):x}x" for c in term) for term in terms)


def outgoing(chunk: Document, key: str, tokenizer: Tokenizer, heading_context: bool, address: str) -> Document:
    """Return a chunk as Milvus keeps it: its terms as the text, all else as fields."""
    if chunk.embedding is None:
        raise StoreError(f"{address}: chunk {chunk.id} has no embedding; Milvus keeps embedded chunks only")
    if len((chunk.content or "").encode()) > _LONGEST:
        raise StoreError(f"{address}: chunk {chunk.id} is longer than {_LONGEST} bytes; lower chunk_words")
    terms = analysed(tokenizer(indexed_text(chunk, heading_context))) or "empty"
    plain = {name: value for name, value in chunk.meta.items() if isinstance(value, str | int | float | bool)}
    fields = {name: value for name, value in plain.items() if name not in _RESERVED}
    kept = {"text": chunk.content or "", "meta_json": json.dumps(chunk.meta, ensure_ascii=False, default=str)}
    meta = {"document": chunk.id, **fields, **kept, "embedding_key": key}
    return replace(chunk, content=terms.encode()[:_LONGEST].decode(errors="ignore"), meta=meta)


def incoming(row: dict[str, Any]) -> Document:
    """Return a row of Milvus (`id`, `text`, `meta_json`) as the chunk it was made from."""
    from haystack import Document

    return Document(id=row["id"], content=row["text"], meta=json.loads(row["meta_json"]))


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn Milvus's failures into `StoreError` that names the address."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, ConnectionError) as error:
        raise StoreError(
            f"{address}: Milvus does not answer as it should ({error}); check the address and {TOKEN_VARIABLE}, "
            "and that no other process holds a Milvus Lite file"
        ) from error

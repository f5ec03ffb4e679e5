"""A small manual, the bundled embedder, and an index of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore

if TYPE_CHECKING:
    from haystack import Document

MANUAL = {
    "tyres": (
        "Tyres",
        """# Tyres

Check the tyre pressure once a month, when the tyres are cold.

## Pressures

| Load | Front | Rear |
|------|-------|------|
| Driver only | 2.4 bar | 2.6 bar |
| Fully loaded | 2.7 bar | 3.1 bar |

## Changing a wheel

To change a wheel:

1. Park on level ground and switch on the hazard lights.
2. Loosen the five wheel nuts by half a turn.
3. Raise the car with the jack under the reinforced sill.

Tighten the wheel nuts to 120 Nm and check them again after 50 km.
""",
    ),
    "charging": (
        "Charging",
        """# Charging

The charge port is behind the flap on the left rear wing.

## At home

A full charge takes 9 hours on a 7.4 kW wall box. Charging stops by itself at the limit that you set.

## Alerts

Alert CHG-B204 means that the cable is not locked. Unplug the cable, wait ten seconds and plug it in again.
Alert CHG-B310 means that the charger is too hot.
""",
    ),
    "heating": (
        "Heating",
        """# Heating

Press the snowflake button to defrost the windscreen. Heated seats have three levels and switch off after 30 minutes.
""",
    ),
}


def manual_documents(manual: dict[str, tuple[str, str]] | None = None) -> list[Document]:
    """Return the manual as Haystack documents."""
    from haystack import Document

    pages = MANUAL if manual is None else manual
    return [
        Document(id=name, content=text, meta={"title": title, "language": "en"})
        for name, (title, text) in pages.items()
    ]


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The bundled embedder on one thread."""
    return Embedder(threads=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store that is not made yet."""
    opened = EmbeddedStore(tmp_path / "index.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def search(store: EmbeddedStore, embedder: Embedder) -> HybridSearch:
    """The indexed manual."""
    config = RagConfig()
    index_documents(manual_documents(), store, embedder, config)
    return HybridSearch(store, embedder, config)

"""Pictures of retrieved sections: listed with the sources, and handed to generators that see."""

from __future__ import annotations

import base64
from pathlib import Path

from haystack import Document
from haystack.dataclasses import ChatMessage, ImageContent

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.pictures import Picture, linked_pictures, pictures_of, seen_pictures, with_pictures
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PAGE = """# Jack

## Placing

![Where the jack goes](../assets/jack.png)

Put the jack under the sill, behind the front wheel, where the mark is. Never put it under the floor or the battery.
Raise the car until the wheel is free. Lower it again before you tighten the nuts for good, crosswise and by hand,
with the wrench that lies in the left pocket of the boot beside the warning triangle and the first-aid kit,
which you should look through once a year and fill up.

## Storing

![The tray](../assets/tray.svg "Tray")

Keep the jack in the tray under the boot floor.
"""


def test_a_sections_pictures_come_with_its_chunks(store: EmbeddedStore, embedder: Embedder) -> None:
    """Also where the link stands in another chunk of the section; other sections' pictures stay away."""
    config = RagConfig(chunk_words=20, overlap_words=0)
    page = Document(id="jack", content=PAGE, meta={"title": "Jack"})
    index_documents([page], store, embedder, config)
    found = HybridSearch(store, embedder, config).retrieve_many(["tighten the nuts crosswise by hand"], top_k=1)[0]
    assert "jack.png" not in (found[0].content or "")
    pictures = pictures_of(found, store)
    assert [(p.path, p.title) for p in pictures] == [("assets/jack.png", "Where the jack goes")]
    assert PAGE[pictures[0].start :].startswith("![Where the jack goes]")
    assert {p.path for p in pictures_of(store.filter_documents(), store)} == {"assets/jack.png", "assets/tray.svg"}


def test_links_that_lead_out_are_left_out() -> None:
    """Of hostile links only an address and a path inside the corpus remain."""
    text = "![a](../../secret.png) ![b](/etc/x.png) ![c](data:image/png;base64,xx) ![d](file:///x.png) ![e](e.png)"
    chunk = Document(id="d", content=text + " ![f](https://example.org/f.png)", meta={"document": "d"})
    assert [picture.path for picture in linked_pictures(chunk)] == ["documents/e.png", "https://example.org/f.png"]


def test_a_generator_sees_files_of_the_corpus_only(tmp_path: Path) -> None:
    """Raster files in the corpus are read; drawings, addresses, missing files and links out of it are passed over."""
    (tmp_path / "corpus" / "assets").mkdir(parents=True)
    (tmp_path / "corpus" / "assets" / "jack.png").write_bytes(PNG)
    (tmp_path / "corpus" / "assets" / "tray.svg").write_text("<svg/>")
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "corpus" / "assets" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = [
        "assets/jack.png",
        "assets/tray.svg",
        "assets/none.png",
        "../secret.png",
        "assets/link.png",
        "https://x/y.png",
    ]
    images = seen_pictures([Picture("d", 0, path, "") for path in paths], tmp_path / "corpus")
    assert [image.meta["path"] for image in images] == ["assets/jack.png"]
    assert base64.b64decode(images[0].base64_image) == PNG
    asked = with_pictures([ChatMessage.from_system("s"), ChatMessage.from_user("q")], images)
    assert asked[-1].text == "q"
    assert isinstance(asked[-1].images[0], ImageContent)
    assert with_pictures([ChatMessage.from_user("q")], []) == [ChatMessage.from_user("q")]

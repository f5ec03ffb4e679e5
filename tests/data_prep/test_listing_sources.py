"""Feeds and pages of ads become records and documents; what is broken is passed over with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.corpus import load_corpus
from data_prep.errors import DataError
from data_prep.intake import Intake, ScrapeReport
from data_prep.listing_pages import rows_of_page
from data_prep.listing_records import attributes_of, group_variants, listing_of_row, parse_price
from data_prep.listing_sources import feed_rows, take_listing_files, without_personal_data
from data_prep.listings import Listing, read_listings

PRODUCT = {
    "@context": "https://schema.org", "@type": "Product", "name": "Kettle K2", "sku": "K2",
    "description": "Boils water.", "brand": {"@type": "Brand", "name": "Acme"}, "category": "Kitchen",
    "aggregateRating": {"@type": "AggregateRating", "ratingValue": "4.4", "reviewCount": "89"},
    "additionalProperty": [{"@type": "PropertyValue", "name": "Volume", "value": "1.7", "unitText": "l"}],
    "offers": {"@type": "Offer", "price": "19.99", "priceCurrency": "EUR", "itemCondition": "https://schema.org/NewCondition"},
}  # fmt: skip


def _scraped(folder: Path, corpus: Path) -> tuple[ScrapeReport, dict[str, Listing]]:
    intake = Intake(corpus)
    take_listing_files(intake, [folder])
    report = intake.finish("feed", language="en")
    return report, {listing.id: listing for listing in read_listings(corpus / "listings.jsonl")}


def test_feeds_become_records_and_documents(tmp_path: Path) -> None:
    """A CSV with semicolons in Latin-1 and a JSONL; ragged, broken and nameless rows are counted by line."""
    feeds = tmp_path / "feeds"
    feeds.mkdir()
    rows = [
        "id;title;description;price;Colour;image",
        "a1;Größe L;<p>Good <b>one</b></p><script>x()</script>;1.299,00 €;red;u.png",
    ]
    (feeds / "one.csv").write_bytes("\n".join([*rows, "a2;;nameless;1;;", "a3;short", ""]).encode("latin-1", "replace"))
    lines = [json.dumps({"name": "Lamp", "body": "# No heading", "stars": 4.5, "review_count": "12"}), "{broken", "[1]"]
    (feeds / "two.jsonl").write_text("\n".join(lines))
    report, listings = _scraped(feeds, tmp_path / "corpus")
    broken = (("one.csv", 3), ("one.csv", 4), ("two.jsonl", 2), ("two.jsonl", 3))
    assert set(report.skipped) == {f"{name}, line {line}" for name, line in broken}
    assert "no title" in report.skipped["one.csv, line 3"]
    assert "2 fields, the header has 6" in report.skipped["one.csv, line 4"]
    one = listings["a1"]
    assert (one.title, one.price, one.description, one.attributes) == ("Größe L", 1299.0, "Good one", {"Colour": "red"})
    assert (listings["listing-00001"].rating, listings["listing-00001"].reviews) == (4.5, 12)
    texts = load_corpus(tmp_path / "corpus").texts().values()
    assert len(texts) == 2
    assert not any("<" in text for text in texts)


@pytest.mark.parametrize(
    ("feed", "wanted"),
    [
        ('1,Lamp,"never closed\n2,Desk,fine\n3,Bed,good\n', [(2, None), (3, "Desk"), (4, "Bed")]),
        ('1,Lamp,"two\nlines"\n2,Desk,"also, closed"\n', [(3, "Lamp"), (4, "Desk")]),
        ('1,Lamp,a\n2,Desk,"open', [(2, "Lamp"), (3, None)]),
        ('1,Lamp,"a" b\n2,"Desk"s,"x"', [(2, "Lamp"), (3, "Desks")]),
        ('1,Lamp,"open\n' + "2,Desk,fine\n" * 100_000, [(2, None)] + [(n, "Desk") for n in range(3, 100_003)]),
    ],
)
def test_a_quote_that_is_never_closed_costs_its_line_alone(feed: str, wanted: list[tuple[int, str | None]]) -> None:
    """The rows behind it are read; a quote over several lines and a sloppy one are none of these."""
    rows = list(feed_rows(f"id,title,description\n{feed}".encode(), ".csv"))
    assert [(line, None if isinstance(row, DataError) else row["title"]) for line, row in rows] == wanted


def test_files_in_a_folder_of_listings_that_are_not_read_are_told(tmp_path: Path) -> None:
    """Another kind of file, and a link out of the folder; pictures are left without a word."""
    feeds = tmp_path / "feeds"
    feeds.mkdir()
    (tmp_path / "out.csv").write_text("id,title\n9,Outside\n")
    (feeds / "out.csv").symlink_to(tmp_path / "out.csv")
    (feeds / "notes.txt").write_text("notes")
    (feeds / "p.png").write_bytes(b"x")
    (feeds / "in.csv").write_text("id,title\n1,Inside\n")
    report, listings = _scraped(feeds, tmp_path / "corpus")
    assert list(listings) == ["1"]
    assert report.skipped == {
        "notes.txt": "files of kind .txt are no listing feeds",
        "out.csv": "is a link that leaves the folder",
    }


@pytest.mark.slow
def test_pages_of_shops_and_saved_ads_become_records(tmp_path: Path) -> None:
    """Marked data where there is some, else what the page shows; a page that sells nothing is passed over."""
    pages = tmp_path / "pages"
    pages.mkdir()
    head = f'<script type="application/ld+json">{json.dumps(PRODUCT)}</script>'
    (pages / "kettle.html").write_text(f"<html><head>{head}</head><body><h1>Kettle</h1></body></html>")
    (pages / "ad.html").write_text(
        '<html><body><ul class="breadcrumb"><li><a>Home</a></li><li><a>Bikes</a></li></ul><h1>Old bike</h1>'
        '<span class="ad-price">1 250 руб.</span><dl><dt>Frame:</dt><dd>54 cm</dd></dl>'
        "<p>In good state.</p></body></html>"
    )
    (pages / "news.html").write_text("<html><body><h1>News</h1><p>nothing to sell</p></body></html>")
    report, listings = _scraped(pages, tmp_path / "corpus")
    kettle, bike = listings["K2"], listings["ad"]
    assert (kettle.price, kettle.currency, kettle.rating, kettle.reviews, kettle.category) == (
        19.99,
        "EUR",
        4.4,
        89,
        "Kitchen",
    )
    assert kettle.attributes == {"Brand": "Acme", "Condition": "NewCondition", "Volume": "1.7 l"}
    assert (bike.price, bike.currency, bike.category, bike.attributes) == (1250.0, "RUB", "Bikes", {"Frame": "54 cm"})
    assert "no product" in report.skipped["news.html"]


def test_microdata_opengraph_and_variants_are_read() -> None:
    """Each way in which a page may state its product."""
    micro = (
        '<div itemscope itemtype="https://schema.org/Product"><span itemprop="name">Cup</span>'
        '<div itemprop="offers" itemscope '
        'itemtype="https://schema.org/Offer"><meta itemprop="price" content="5">'
        '<meta itemprop="priceCurrency" content="EUR"></div></div>'
    )
    assert [(row["title"], row["price"]) for row in rows_of_page(f"<html><body>{micro}</body></html>")] == [
        ("Cup", "5")
    ]
    graph = '<html prefix="og: http://ogp.me/ns# product: http://ogp.me/ns/product#"><head>'
    graph += '<meta property="og:type" content="product">'
    graph += '<meta property="og:title" content="Cup"><meta property="product:price:amount" content="5">'
    graph += "</head><body></body></html>"
    assert rows_of_page(graph)[0]["title"] == "Cup"
    group = {"@type": "ProductGroup", "name": "Cup", "productGroupID": "C", "hasVariant": [
        {"@type": "Product", "name": "Cup red", "sku": "C1"},
        {"@type": "Product", "name": "Cup blue", "sku": "C2"}]}  # fmt: skip
    page = f'<html><head><script type="application/ld+json">{json.dumps(group)}</script></head><body></body></html>'
    assert [(row["title"], row["variant_group"]) for row in rows_of_page(page)] == [("Cup red", "C"), ("Cup blue", "C")]
    with pytest.raises(DataError, match="no product"):
        rows_of_page(
            '<html><head><script type="application/ld+json">{broken</script></head><body><p>x</p></body></html>'
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.299,00 €", (1299.0, "EUR")), ("$1,299.99", (1299.99, "USD")), ("1 250 руб.", (1250.0, "RUB")),
        ("EUR 12", (12.0, "EUR")), ("12,5", (12.5, None)), ("1,299", (1299.0, None)), ("from 99 zł", (99.0, "PLN")),
        (7, (7.0, None)), ("free", (None, None)), (None, (None, None)), (-1, (None, None)), ("9" * 400, (None, None)),
    ],
)  # fmt: skip
def test_prices_are_read_as_people_write_them(text: object, expected: tuple[float | None, str | None]) -> None:
    """Points and commas, signs and codes."""
    assert parse_price(text) == expected


def test_variants_of_one_model_are_grouped() -> None:
    """Size, colour and capacity make a variant; another model, or the same ad twice, does not."""
    titles = ("Phone X 128 GB black", "Phone X 256 GB white", "Phone Y 128 GB black", "Sofa", "Sofa")
    rows = [
        listing_of_row({"id": str(number), "title": title, "category": "c"}, number)
        for number, title in enumerate(titles)
    ]
    assert [listing.variant_group for listing in group_variants(rows)] == ["phone-x", "phone-x", None, None, None]


def test_personal_data_goes_on_request() -> None:
    """From title and description; the listing's own address stays."""
    row = {
        "title": "Bike",
        "description": "Call +44 20 7946 0958 or write to a@b.example",
        "url": "https://x.example/1",
    }
    clean = without_personal_data(listing_of_row(row, 1))
    assert "7946" not in clean.description
    assert "a@b" not in clean.description
    assert clean.url == "https://x.example/1"


def test_attributes_come_in_many_forms() -> None:
    """Mappings, JSON in a cell, pairs, plain text."""
    expected = {"Width": "90 cm"}
    for value in (expected, '{"Width": "90 cm"}', "Width: 90 cm; x", [{"name": "Width", "value": "90 cm"}]):
        assert attributes_of(value) == expected
    assert attributes_of("{broken") == {}

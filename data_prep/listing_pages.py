"""A page of a shop or of an ad site into listings: what it says for machines, else what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.converting.html_inline import collapse
from data_prep.converting.html_page import convert_html, parse
from data_prep.errors import DataError

_PRODUCTS = frozenset(
    {"product", "productmodel", "individualproduct", "vehicle", "car", "book", "offer", "productgroup", "someproducts"}
)
_PLAIN = {
    "Brand": "brand", "Model": "model", "Colour": "color", "Size": "size", "Material": "material", "Weight": "weight",
    "Width": "width", "Height": "height", "Depth": "depth", "Part number": "mpn", "Condition": "itemCondition",
    "Availability": "availability",
}  # fmt: skip
_PRICE_CLASS = re.compile(r"(?:^|[\s_-])(?:price|amount|cost|preis|prix|precio)(?:$|[\s_-])", re.IGNORECASE)
_PLACE_CLASS = re.compile(r"(?:^|[\s_-])(?:location|address|place|city|region)(?:$|[\s_-])", re.IGNORECASE)
_MOST = 500


def rows_of_page(text: str, url: str | None = None) -> list[dict[str, Any]]:
    """Return the rows (as `listing_of_row` takes them) of the products or ads on a page.

    JSON-LD and microdata come first, then OpenGraph, then the visible page: heading, price, list of properties, text.
    Raises `DataError` for a page on which no product or ad can be told.
    """
    stated = list(_stated(text, url))[:_MOST]
    if stated:
        return stated
    row = _shown(text, url)
    if not row.get("title") or not (row.get("price") or row.get("attributes")):
        raise DataError("no product or ad can be told on it: neither marked data, nor a heading with a price")
    return [row]


def _stated(text: str, url: str | None) -> Iterator[dict[str, Any]]:
    import extruct

    found = extruct.extract(
        text, base_url=url, syntaxes=["json-ld", "microdata", "opengraph"], uniform=True, errors="ignore"
    )
    seen: set[str] = set()
    for item in _products([*found.get("json-ld", []), *found.get("microdata", [])]):
        for row in _rows(item, url):
            sign = repr((row.get("title"), row.get("price"), row.get("id"), row.get("attributes")))
            if row.get("title") and sign not in seen:
                seen.add(sign)
                yield row
    if not seen:
        yield from (graph for item in found.get("opengraph", []) if (graph := _open_graph(item)) is not None)


def _products(items: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the outermost products and offers in a tree of structured data."""
    if depth > 20:
        return
    if isinstance(items, list):
        for item in items:
            yield from _products(item, depth + 1)
    elif isinstance(items, Mapping):
        if _kinds(items) & _PRODUCTS and (items.get("name") or items.get("itemOffered")):
            yield items
        else:
            for value in items.values():
                yield from _products(value, depth + 1)


def _kinds(item: Mapping[str, Any]) -> set[str]:
    kinds = item.get("@type") or []
    return {str(kind).rsplit("/", 1)[-1].lower() for kind in (kinds if isinstance(kinds, list) else [kinds])}


def _rows(item: Mapping[str, Any], url: str | None) -> Iterator[dict[str, Any]]:
    if isinstance(item.get("itemOffered"), Mapping):
        item = {**item["itemOffered"], "offers": {key: value for key, value in item.items() if key != "itemOffered"}}
    variants = [variant for variant in _list(item.get("hasVariant")) if isinstance(variant, Mapping)]
    base = {key: value for key, value in item.items() if key not in {"hasVariant", "@type", "@id", "url", "offers"}}
    group = item.get("productGroupID") or item.get("name")
    for variant in variants:
        yield _row({**base, **variant, "inProductGroupWithID": group}, url)
    if not variants:
        yield _row(item, url)


def _row(item: Mapping[str, Any], url: str | None) -> dict[str, Any]:
    offer = next((offer for offer in _list(item.get("offers")) if isinstance(offer, Mapping)), {})
    inner = next((part for part in _list(offer.get("offers")) if isinstance(part, Mapping)), {})
    terms = next((part for part in _list(offer.get("priceSpecification")) if isinstance(part, Mapping)), {})
    rating = item.get("aggregateRating") if isinstance(item.get("aggregateRating"), Mapping) else {}
    model = item.get("isVariantOf")
    group = item.get("inProductGroupWithID") or (
        model.get("productGroupID") or model.get("name") if isinstance(model, Mapping) else None
    )
    prices = [offer.get("price"), offer.get("lowPrice"), terms.get("price"), inner.get("price"), item.get("price")]
    codes = [offer.get("priceCurrency"), terms.get("priceCurrency"), inner.get("priceCurrency")]
    return {
        "id": _text(item.get("sku") or item.get("productID") or item.get("mpn")),
        "title": _text(item.get("name")),
        "description": _text(item.get("description")),
        "category": _text(item.get("category")),
        "price": next((price for price in map(_text, prices) if price), None),
        "currency": next((code for code in map(_text, codes) if code), None),
        "rating": _text((rating or {}).get("ratingValue")),
        "reviews": _text((rating or {}).get("reviewCount") or (rating or {}).get("ratingCount")),
        "url": _text(offer.get("url") or item.get("url")) or url,
        "variant_group": _text(group),
        "attributes": _attributes({**offer, **item}),
    }


def _attributes(item: Mapping[str, Any]) -> dict[str, str]:
    found = {label: _text(item.get(name)).rsplit("/", 1)[-1] for label, name in _PLAIN.items() if _text(item.get(name))}
    for extra in _list(item.get("additionalProperty")):
        if isinstance(extra, Mapping) and extra.get("name"):
            unit = _text(extra.get("unitText"))
            found[_text(extra["name"])] = f"{_text(extra.get('value'))} {unit}".strip()
    return found


def _open_graph(item: Mapping[str, Any]) -> dict[str, Any] | None:
    price = item.get("product:price:amount") or item.get("og:price:amount")
    if price is None and "product" not in str(item.get("@type") or item.get("og:type")):
        return None
    brand = _text(item.get("product:brand"))
    return {
        "title": _text(item.get("og:title")),
        "description": _text(item.get("og:description")),
        "category": _text(item.get("product:category")),
        "price": _text(price),
        "currency": _text(item.get("product:price:currency") or item.get("og:price:currency")),
        "url": _text(item.get("og:url")),
        "attributes": {"Brand": brand} if brand else {},
    }


def _shown(text: str, url: str | None) -> dict[str, Any]:
    """Return what a visitor sees of an ad that says nothing for machines."""
    tree = parse(text)
    heading = next((found for found in tree.iter("h1") if found.text_content().strip()), None)
    row: dict[str, Any] = {
        "title": collapse(heading.text_content()).strip() if heading is not None else "",
        "price": _first(tree, _PRICE_CLASS, needs_digit=True),
        "place": _first(tree, _PLACE_CLASS),
        "attributes": _pairs(tree),
        "url": url,
    }
    crumbs = [
        link for nav in tree.iter("nav", "ol", "ul") if "breadcrumb" in str(nav.get("class")) for link in nav.iter("a")
    ]
    row["category"] = collapse(crumbs[-1].text_content()).strip() if crumbs else ""
    try:
        body = convert_html(text, row["title"] or "Ad", url=url).markdown
    except DataError:
        body = ""
    row["description"] = re.sub(r"\A# .*\n+", "", body)
    return row


def _first(tree: Any, wanted: re.Pattern[str], *, needs_digit: bool = False) -> str:
    for element in tree.iter():
        if isinstance(element.tag, str) and wanted.search(
            f"{element.get('class') or ''} {element.get('itemprop') or ''}"
        ):
            text = collapse(element.get("content") or element.text_content()).strip()
            if 0 < len(text) <= 120 and (not needs_digit or re.search(r"\d", text)):
                return text
    return ""


def _pairs(tree: Any) -> dict[str, str]:
    """Return name and value of definition lists and of tables of two columns."""
    pairs: dict[str, str] = {}
    for term in tree.iter("dt"):
        value = term.getnext()
        if value is not None and value.tag == "dd":
            pairs[_label(term)] = collapse(value.text_content()).strip()
    for line in tree.iter("tr"):
        cells = [cell for cell in line if cell.tag in {"td", "th"}]
        if len(cells) == 2:
            pairs[_label(cells[0])] = collapse(cells[1].text_content()).strip()
    return {name: value for name, value in pairs.items() if 0 < len(name) <= 60 and 0 < len(value) <= 200}


def _label(element: Any) -> str:
    return str(collapse(element.text_content())).strip().rstrip(":").strip()


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: object) -> str:
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("@value") or value.get("value")
    return "" if value is None or isinstance(value, (Mapping, list)) else str(value).strip()

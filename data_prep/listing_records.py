"""Loose rows of feeds and pages into listings: which field is which, prices as people write them, variants grouped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from data_prep.converting.inert import inert, safe_links, tidy_text
from data_prep.errors import DataError
from data_prep.intake import document_id
from data_prep.listings import Listing

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "sku", "ad_id", "listing_id", "product_id", "offer_id", "asin", "gtin", "ean"),
    "title": ("title", "name", "product_name", "product_title", "subject", "headline"),
    "description": ("description", "body", "text", "details", "about", "product_description", "summary"),
    "category": ("category", "product_type", "google_product_category", "categories", "category_name", "section"),
    "price": ("price", "sale_price", "amount", "cost", "current_price", "low_price"),
    "currency": ("currency", "price_currency", "currency_code", "pricecurrency"),
    "attributes": ("attributes", "features", "specs", "specifications", "properties", "params"),
    "rating": ("rating", "average_rating", "stars", "rating_value", "score"),
    "reviews": ("reviews", "review_count", "reviews_count", "num_reviews", "ratings_count", "rating_count"),
    "url": ("url", "link", "product_url", "href", "source"),
    "place": ("place", "location", "city", "region", "address"),
    "language": ("language", "lang", "locale"),
    "variant_group": ("variant_group", "item_group_id", "parent_asin", "parent_sku", "group_id", "product_group_id"),
}
"""What a listing's fields are called in feeds; the first name that a row has is taken."""
_IGNORED = frozenset({"image", "images", "image_link", "image_url", "picture", "pictures", "photo", "photos", "gold"})
_SIGNS = {"€": "EUR", "$": "USD", "£": "GBP", "₽": "RUB", "¥": "JPY", "₴": "UAH", "₹": "INR", "zł": "PLN", "руб": "RUB"}
_CODE = re.compile(r"\b([A-Z]{3})\b")
_AMOUNT = re.compile(r"\d[\d\s\u00a0\u202f'.,]*")
_TAGGED = re.compile(r"<(?:p|br|div|ul|ol|li|b|strong|span|table|h[1-6])\b", re.IGNORECASE)
_VARIANT_WORD = re.compile(
    r"\b\d+(?:[.,]\d+)?\s?(?:gb|tb|mb|gib|ml|cl|l|g|kg|mg|mm|cm|m|in|inch|oz|lb|w|wh|mah|гб|тб|мл|л|г|кг|см|мм|м|шт|pcs|pack)\b|"
    r"\b(?:xxs|xs|s|m|l|xl|xxl|xxxl|[2-5]xl)\b|\([^)]*\)|\b(?:size|colou?r|размер|цвет)\b",
    re.IGNORECASE,
)
_COLOUR_NAMES = (
    "black white red blue green grey gray silver gold pink purple yellow orange brown beige navy graphite чёрный "
    "черный белый красный синий зелёный зеленый серый серебристый золотой розовый жёлтый желтый"
)
_COLOURS = frozenset(_COLOUR_NAMES.split())
_VARIANT_ATTRIBUTES = frozenset({"color", "colour", "size", "storage", "capacity", "цвет", "размер", "объём", "память"})
_LONGEST_TITLE = 300
_LONGEST_TEXT = 100_000


def listing_of_row(row: Mapping[str, Any], number: int, language: str = "en") -> Listing:
    """Return the listing of one row of a feed; fields that are none of a listing's become attributes.

    Raises `DataError` for a row without title.
    """
    given = {_name(key): value for key, value in row.items() if value not in (None, "", [], {})}
    picked = {field: next((given[name] for name in names if name in given), None) for field, names in FIELDS.items()}
    title = one_line(picked["title"])[:_LONGEST_TITLE]
    if not title:
        raise DataError("has no title")
    price, currency = parse_price(picked["price"])
    stated = one_line(picked["currency"]).upper()
    used = {name for names in FIELDS.values() for name in names if name in given} | _IGNORED
    extra = {one_line(key): one_line(value) for key, value in row.items() if _name(key) not in used}
    attributes = {
        **attributes_of(picked["attributes"]),
        **{key: value for key, value in extra.items() if key and value},
    }
    return Listing(
        id=document_id(one_line(picked["id"]) + ".md") if picked["id"] else f"listing-{number:05d}",
        title=title,
        description=long_text(picked["description"]),
        category=one_line(_joined(picked["category"])) or "uncategorised",
        price=price,
        currency=stated if re.fullmatch(r"[A-Z]{3}", stated) else currency,
        attributes=attributes,
        rating=_number(picked["rating"], 0, 1000),
        reviews=int(_number(picked["reviews"], 0, 10**9) or 0),
        place=one_line(_joined(picked["place"])) or None,
        url=web_address(picked["url"]),
        language=one_line(picked["language"])[:2].lower() or language,
        variant_group=one_line(picked["variant_group"]) or None,
    )


def parse_price(value: object) -> tuple[float | None, str | None]:
    """Return amount and currency of a price as people write it: `1.299,00 €`, `$1,299.99`, `1 250 руб.`."""
    if isinstance(value, bool) or value is None:
        return None, None
    if isinstance(value, (int, float)):
        return (float(value), None) if 0 <= value < 1e12 else (None, None)
    text = one_line(value)
    code = _CODE.search(text)
    currency = code.group(1) if code else next((name for sign, name in _SIGNS.items() if sign in text.lower()), None)
    found = _AMOUNT.search(text)
    return (_amount(found.group()) if found else None), currency


def attributes_of(value: object) -> dict[str, str]:
    """Return attributes from a mapping, from named values, or from text such as `Width: 90 cm; Colour: red`."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        import json

        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, str):
        pairs = [part.split(":", 1) for part in re.split(r"[;\n|]", value) if ":" in part]  # type: ignore[misc]
    elif isinstance(value, Sequence):
        pairs = [(item.get("name"), item.get("value")) for item in value if isinstance(item, Mapping)]
    else:
        return {}
    named = {one_line(name): one_line(_joined(text)) for name, text in pairs}
    return {name: text for name, text in named.items() if name and text}


def one_line(value: object) -> str:
    """Return a value as one line of text in which nothing is live."""
    if isinstance(value, (Mapping, list)) or value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return safe_links(inert(" ".join(tidy_text(re.sub(r"<[^<>]{0,200}>", " ", text[:_LONGEST_TEXT])).split())))


def long_text(value: object) -> str:
    """Return a description as paragraphs; one that is HTML is converted."""
    text = str(_joined(value) or "")[:_LONGEST_TEXT]
    if _TAGGED.search(text):
        from data_prep.converting.html_page import fragment_markdown

        return fragment_markdown(text)
    body = safe_links(inert(tidy_text(text))).strip()
    return re.sub(r"(?m)^(#{1,6}\s)", r"\\\1", body)


def web_address(value: object) -> str | None:
    """Return a value if it is a web address."""
    text = str(value or "").strip()
    return text if re.fullmatch(r"https?://[^\s<>\"]{3,2000}", text) else None


def unique_ids(listings: Iterable[Listing]) -> list[Listing]:
    """Return the listings with ids that differ, also for a file system that does not tell cases apart."""
    taken: set[str] = set()
    result = []
    for listing in listings:
        name, number = listing.id, 2
        while name.casefold() in taken:
            name, number = f"{listing.id}-{number}", number + 1
        taken.add(name.casefold())
        result.append(replace(listing, id=name) if name != listing.id else listing)
    return result


def group_variants(listings: Sequence[Listing]) -> list[Listing]:
    """Return the listings with `variant_group` set for those that are one model in several sizes, colours, capacities.

    Groups that a feed states are kept. Others are those whose category, brand and title agree once sizes, colours and
    what stands in brackets are taken out of the title, while something of what was taken out differs.
    """
    alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, listing in enumerate(listings):
        stem = _model(listing)
        if listing.variant_group is None and len(stem) >= 4:
            alike[listing.category.casefold(), _brand(listing), stem].append(place)
    result = list(listings)
    for (_, _, stem), places in alike.items():
        signs = {(listings[place].title.casefold(), _choices(listings[place])) for place in places}
        if len(places) > 1 and len(signs) > 1:
            group = document_id(stem)[:60]
            for place in places:
                result[place] = replace(result[place], variant_group=group)
    return result


def _model(listing: Listing) -> str:
    title = listing.title.casefold()
    for name, value in listing.attributes.items():
        if name.casefold() in _VARIANT_ATTRIBUTES and value:
            title = title.replace(value.casefold(), " ")
    words = re.findall(r"\w+", _VARIANT_WORD.sub(" ", title))
    return " ".join(word for word in words if word not in _COLOURS)


def _brand(listing: Listing) -> str:
    return next(
        (value for name, value in listing.attributes.items() if name.casefold() in {"brand", "бренд"}), ""
    ).casefold()


def _choices(listing: Listing) -> tuple[str, ...]:
    return tuple(sorted(value for name, value in listing.attributes.items() if name.casefold() in _VARIANT_ATTRIBUTES))


def _name(key: object) -> str:
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key).strip().removeprefix("g:"))
    return re.sub(r"[\s\-]+", "_", text).lower()


def _joined(value: object) -> object:
    if isinstance(value, Mapping):
        return value.get("name") or value.get("@value") or ""
    if isinstance(value, list):
        return ", ".join(str(_joined(item)) for item in value[:20])
    return value


def _number(value: object, low: float, high: float) -> float | None:
    try:
        number = float(str(value).replace(",", ".").split("/")[0]) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and low <= number <= high else None


def _amount(text: str) -> float | None:
    """Read an amount: the last of point and comma before one or two digits is the decimal sign."""
    digits = re.sub(r"[\s\u00a0\u202f']", "", text).rstrip(".,")
    decimal = re.search(r"[.,](\d{1,2})$", digits)
    whole = re.sub(r"[.,]", "", digits[: decimal.start()] if decimal else digits)
    try:
        amount = float(f"{whole}.{decimal.group(1)}" if decimal else whole)
    except ValueError:
        return None
    return amount if amount < 1e12 else None

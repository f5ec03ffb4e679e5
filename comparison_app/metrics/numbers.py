"""Do the numbers agree? All of the gold answer's stand in the answer, and none that nobody asked for.

After DROP (Dua et al. 2019, arXiv 1903.00161), whose score gives nothing to an answer with another number than the gold
one's; here units belong to numbers, and the words around them count nothing.
A *quantity* is a number with its unit, or a code that holds a digit ("ESP_a118"). Exactly:

- "1,000", "1 000" and "1000" are one number, so are "2.50", "2,5" and "2.5"; "1.000" is one point nought.
- Number words from two to twenty, and the tens, count as numbers, in English and Russian; "one" does not ("the one").
- Numbers of list items at the start of a line ("1. Open the door") and citations ("[1]") are not quantities.
- A unit is the known unit that follows the number, or the currency before it. Names of a unit are equal ("hours",
  "h"); nothing is converted: 1 km is not 1000 m.
- Two quantities agree if their numbers are equal and their units are, or if one of them has no unit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from comparison_app.metrics.normalise import without_citations


class Quantity(NamedTuple):
    """A number in plain decimal form, or a code, and its unit ("" if none is named)."""

    number: str
    unit: str


_UNITS = {
    "km": "km kilometre kilometres kilometer kilometers км километр километра километров",
    "km/h": "km/h kph kmh км/ч",
    "m": "m metre metres meter meters м метр метра метров",
    "cm": "cm centimetre centimetres centimeter centimeters см сантиметр сантиметра сантиметров",
    "mm": "mm millimetre millimetres millimeter millimeters мм миллиметр миллиметра миллиметров",
    "mi": "mi mile miles миля мили миль",
    "mph": "mph",
    "in": "inch inches дюйм дюйма дюймов",
    "ft": "ft foot feet",
    "kW": "kw kilowatt kilowatts квт",
    "kWh": "kwh квтч",
    "W": "w watt watts вт",
    "Wh": "wh втч",
    "V": "v volt volts вольт",
    "A": "amp amps ampere amperes ампер",
    "Ah": "ah",
    "°C": "°c ℃ celsius",
    "°F": "°f fahrenheit",
    "°": "° degree degrees градус градуса градусов",
    "%": "% percent per_cent процент процента процентов",
    "bar": "bar bars бар бара",
    "psi": "psi",
    "kPa": "kpa кпа",
    "Nm": "nm нм",
    "h": "h hr hrs hour hours ч час часа часов",
    "min": "min mins minute minutes мин минута минуты минут минуту",
    "s": "s sec secs second seconds сек секунда секунды секунд секунду",
    "ms": "ms millisecond milliseconds мс",
    "d": "day days день дня дней",
    "wk": "week weeks неделя недели недель неделю",
    "mo": "month months месяц месяца месяцев",
    "y": "year years yr yrs год года лет",
    "kg": "kg kilogram kilograms кг килограмм килограмма килограммов",
    "g": "g gram grams г грамм грамма граммов",
    "lb": "lb lbs pound pounds",
    "l": "l litre litres liter liters л литр литра литров",
    "ml": "ml millilitre millilitres milliliter milliliters мл",
    "Hz": "hz гц",
    "kHz": "khz кгц",
    "MHz": "mhz мгц",
    "GHz": "ghz ггц",
    "kB": "kb кб",
    "MB": "mb мб",
    "GB": "gb гб",
    "TB": "tb тб",
    "USD": "$ usd dollar dollars доллар доллара долларов",
    "EUR": "€ eur euro euros евро",
    "GBP": "£ gbp",
    "RUB": "₽ rub руб рубль рубля рублей",
}
_UNIT_OF = {name.replace("_", " "): unit for unit, names in _UNITS.items() for name in names.split()}
_WORDS_OF = {
    "2": "two два две двух",
    "3": "three три трех",
    "4": "four четыре четырех",
    "5": "five пять пяти",
    "6": "six шесть шести",
    "7": "seven семь семи",
    "8": "eight восемь восьми",
    "9": "nine девять девяти",
    "10": "ten десять десяти",
    "11": "eleven одиннадцать",
    "12": "twelve двенадцать",
    "13": "thirteen тринадцать",
    "14": "fourteen четырнадцать",
    "15": "fifteen пятнадцать",
    "16": "sixteen шестнадцать",
    "17": "seventeen семнадцать",
    "18": "eighteen восемнадцать",
    "19": "nineteen девятнадцать",
    "20": "twenty двадцать",
    "30": "thirty тридцать",
    "40": "forty сорок",
    "50": "fifty пятьдесят",
    "60": "sixty шестьдесят",
    "70": "seventy семьдесят",
    "80": "eighty восемьдесят",
    "90": "ninety девяносто",
}
_NUMBER_WORD = {word: number for number, names in _WORDS_OF.items() for word in names.split()}
_LIST_ITEM = re.compile(r"(?m)^\s*\d{1,2}[.)]\s+")
_UNIT_NAMES = "|".join(re.escape(name) for name in sorted(_UNIT_OF, key=len, reverse=True))
_QUANTITY = re.compile(
    r"(?P<code>(?<!\w)[^\W\d_][\w-]*\d[\w-]*)"
    r"|(?P<currency>[$€£₽])?\s?"
    rf"(?:(?P<number>(?<![\w.,])-?(?:\d{{1,3}}(?:[ ,]\d{{3}})+(?:\.\d+)?|\d+(?:[.,]\d+)?))"
    rf"|(?<!\w)(?P<word>{'|'.join(sorted(_NUMBER_WORD, key=len, reverse=True))})(?!\w))"
    rf"(?:st|nd|rd|th)?(?:[\s-]?(?P<unit>{_UNIT_NAMES})(?![^\W\d_]))?"
)


def quantities(text: str) -> frozenset[Quantity]:
    """Return the quantities of `text`."""
    return _quantities(text)


@lru_cache(maxsize=20_000)
def _quantities(text: str) -> frozenset[Quantity]:
    found = set()
    for match in _QUANTITY.finditer(_prepared(text)):
        if match["code"]:
            found.add(Quantity(match["code"].replace("-", ""), ""))
            continue
        number = _NUMBER_WORD[match["word"]] if match["word"] else _plain(match["number"])
        found.add(Quantity(number, _UNIT_OF.get(match["unit"] or match["currency"] or "", "")))
    return frozenset(found)


def _prepared(text: str) -> str:
    """Fold `text` so that one pattern reads it: one minus sign, one space, small letters, ranges with "to"."""
    folded = unicodedata.normalize("NFKC", _LIST_ITEM.sub("", without_citations(text))).casefold()
    folded = folded.replace("ё", "е").replace("−", "-").replace("·", "").replace("⁄", "/")
    return re.sub(r"(?<=\d)\s?[-–—]\s?(?=\d)", " to ", folded)


def _plain(number: str) -> str:
    """Write `number` without groups and without zeros that say nothing: "1,000" is "1000", "2,50" is "2.5"."""
    if re.fullmatch(r"-?\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?", number):
        number = number.replace(",", "").replace(" ", "")
    number = number.replace(",", ".")
    whole, _, part = number.partition(".")
    part = part.rstrip("0")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return sign + (digits.lstrip("0") or "0") + (f".{part}" if part else "")


def agree(one: Quantity, other: Quantity) -> bool:
    """Tell whether two quantities are the same: equal numbers, and equal units or one unit unnamed."""
    return one.number == other.number and (one.unit == other.unit or not one.unit or not other.unit)


def all_stand_in(wanted: frozenset[Quantity], given: frozenset[Quantity]) -> bool:
    """Tell whether every quantity of `wanted` agrees with one of `given`."""
    return all(any(agree(quantity, other) for other in given) for quantity in wanted)


def numbers_match(answer: str, golds: Sequence[str], question: str = "") -> float | None:
    """1 if the answer holds all quantities of a gold answer and no other, save those of the question; else 0.

    None, the metric does not apply, where no gold answer holds a quantity.
    """
    wanted = [quantities(gold) for gold in golds]
    if not any(wanted):
        return None
    given, asked = quantities(answer), quantities(question)
    return float(any(all_stand_in(gold, given) and all_stand_in(given, gold | asked) for gold in wanted))

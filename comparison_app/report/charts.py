"""Charts as inline SVG: no script, no outside file, colours from the page's style, a title and description each.

Widths are those of a phone's column, so that text keeps its size there and on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 360
_LABEL, _VALUE = 108, 44
_ROW = 26
_TOP, _BOTTOM = 8, 24


@dataclass(frozen=True)
class Dot:
    """One row of a chart: a value between 0 and 1 with its interval, drawn in colour `colour` (0, 1, 2 …)."""

    label: str
    value: float
    low: float | None
    high: float | None
    colour: int


@dataclass(frozen=True)
class Spot:
    """One point of a scatter: x above 0 (drawn on a log scale), y with its interval between 0 and 1."""

    label: str
    x: float
    y: float
    low: float | None
    high: float | None
    colour: int


def _document(name: str, description: str, height: int, body: Sequence[Markup]) -> Markup:
    """Wrap drawing `body` in an accessible SVG of the page's width."""
    inside = Markup("").join(body)
    return Markup(
        '<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{name}. {description}">'
        "<title>{name}</title><desc>{description}</desc>{inside}</svg>"
    ).format(width=WIDTH, height=height, name=name, description=description, inside=inside)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, kind, text)


def _circle(x: float, y: float, radius: float, kind: str) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"/>').format(x, y, radius, kind)


def shorten(label: str, length: int = 16) -> str:
    """Cut a label that does not fit."""
    return label if len(label) <= length else label[: length - 1] + "…"


def dot_chart(name: str, dots: Sequence[Dot]) -> Markup:
    """Draw one row per arm: a dot at its mean, a whisker over its interval, the mean in points at the right."""
    left, right = _LABEL, WIDTH - _VALUE
    height = _TOP + _ROW * len(dots) + _BOTTOM
    body = _scale(left, right, height)
    for row, dot in enumerate(dots):
        y = _TOP + _ROW * (row + 0.5)
        x = left + (right - left) * dot.value
        colour = f"c{dot.colour % 8}"
        body.append(_text(left - 10, y + 4, shorten(dot.label), "label end"))
        if dot.low is not None and dot.high is not None:
            ends = [left + (right - left) * bound for bound in (dot.low, dot.high)]
            body.append(_line(ends[0], y, ends[1], y, f"whisker {colour}"))
        body.append(_circle(x, y, 5, f"dot {colour}"))
        body.append(_text(WIDTH - 4, y + 4, f"{100 * dot.value:.0f}", "value end"))
    described = "; ".join(f"{dot.label} {_span(dot.value, dot.low, dot.high)}" for dot in dots)
    return _document(name, described, height, body)


def _scale(left: float, right: float, height: int) -> list[Markup]:
    """Draw the grid from 0 to 100 points."""
    body = []
    for tick in (0, 25, 50, 75, 100):
        x = left + (right - left) * tick / 100
        body.append(_line(x, _TOP, x, height - _BOTTOM, "grid"))
        body.append(_text(x, height - 8, str(tick), "tick middle"))
    return body


def _span(value: float, low: float | None, high: float | None) -> str:
    """Write a value with its interval in points."""
    if low is None or high is None:
        return f"{100 * value:.0f}, no interval"
    return f"{100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def difference_bar(name: str, value: float, low: float | None, high: float | None, colour: int, reach: float) -> Markup:
    """Draw one difference around zero, between -`reach` and `reach`; a whisker over its interval."""
    width, height, y = 220, 26, 13
    centre, unit = width / 2, (width / 2 - 8) / reach
    body = [_line(centre, 1, centre, height - 1, "zero")]
    if low is not None and high is not None:
        body.append(_line(centre + low * unit, y, centre + high * unit, y, f"whisker c{colour % 8}"))
    body.append(_circle(centre + value * unit, y, 5, f"dot c{colour % 8}"))
    return Markup(
        '<svg class="bar" viewBox="0 0 {width} {height}" role="img" aria-label="{name}"><title>{name}</title>'
        "<desc>{span}</desc>{body}</svg>"
    ).format(width=width, height=height, name=name, span=_span(value, low, high), body=Markup("").join(body))


def scatter(name: str, x_name: str, spots: Sequence[Spot]) -> Markup:
    """Draw quality (up) against `x_name` (right, log scale); each spot labelled, with its interval."""
    left, right, top, height = 34, WIDTH - 12, 12, 270
    bottom = height - 40
    shown = [spot for spot in spots if spot.x > 0]
    low, high = _decades([spot.x for spot in shown])

    def place(x: float) -> float:
        return left + (right - left) * (math.log10(x) - low) / (high - low)

    body = _scatter_frame(x_name, low, high, left, right, top, bottom)
    taken: list[tuple[float, float]] = []
    for spot in sorted(shown, key=lambda item: -item.y):
        x, y = place(spot.x), bottom - (bottom - top) * spot.y
        if spot.low is not None and spot.high is not None:
            ends = [bottom - (bottom - top) * bound for bound in (spot.low, spot.high)]
            body.append(_line(x, ends[0], x, ends[1], f"whisker thin c{spot.colour % 8}"))
        body.append(_circle(x, y, 6, f"dot c{spot.colour % 8}"))
        side = x > (left + right) / 2
        label_y = _free(x, y + 4, taken)
        body.append(_text(x - 10 if side else x + 10, label_y, spot.label, f"label {'end' if side else ''}"))
    described = "; ".join(f"{spot.label}: {spot.x:.3g}, {_span(spot.y, spot.low, spot.high)}" for spot in shown)
    return _document(name, described, height, body)


def _free(x: float, y: float, taken: list[tuple[float, float]]) -> float:
    """Move a label down until it meets none that is there, and take its place."""
    while any(abs(y - other_y) < 13 and abs(x - other_x) < 150 for other_x, other_y in taken):
        y += 3
    taken.append((x, y))
    return y


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the log range that holds `values`, with room at both sides."""
    logs = [math.log10(value) for value in values] or [0.0]
    low, high = math.floor(min(logs) - 0.1), math.ceil(max(logs) + 0.1)
    return float(low), float(max(high, low + 1))


def _scatter_frame(
    x_name: str, low: float, high: float, left: float, right: float, top: float, bottom: float
) -> list[Markup]:
    """Draw the grid, the ticks and the axis names of a scatter."""
    body = _heights(left, right, top, bottom)
    for decade in range(int(low), int(high) + 1):
        x = left + (right - left) * (decade - low) / (high - low)
        body.append(_line(x, top, x, bottom, "grid"))
        body.append(_text(x, bottom + 16, f"{10.0**decade:g}", f"tick {'end' if decade == int(high) else 'middle'}"))
    body.append(_text((left + right) / 2, bottom + 34, x_name, "axis middle"))
    return body


def legend(names: Sequence[str], colours: Sequence[int] | None = None) -> Markup:
    """Return names beside their colours, by default one after the other."""
    items = [
        Markup('<li><span class="key k{}"></span>{}</li>').format(colour % 8, escape(name))
        for name, colour in zip(names, colours or range(len(names)), strict=True)
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


@dataclass(frozen=True)
class Strip:
    """One row of a strip chart: the values of several trainings, between 0 and 1."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """One line of a line chart: its spots from left to right, drawn in colour `colour`."""

    label: str
    spots: tuple[Spot, ...]
    colour: int


def strip_chart(name: str, strips: Sequence[Strip], colour: int) -> Markup:
    """Draw one row per slice: a dot for each training, a line from the least to the largest, both at the right."""
    left, right = _LABEL, WIDTH - _VALUE - 18
    height = _TOP + _ROW * len(strips) + _BOTTOM
    body = _scale(left, right, height)
    kind = f"c{colour % 8}"
    for row, strip in enumerate(strips):
        y = _TOP + _ROW * (row + 0.5)
        ends = [left + (right - left) * value for value in (min(strip.values), max(strip.values))]
        body.append(_text(left - 10, y + 4, shorten(strip.label), "label end"))
        body.append(_line(ends[0], y, ends[1], y, f"whisker {kind}"))
        body += [_circle(left + (right - left) * value, y, 4, f"dot {kind}") for value in strip.values]
        body.append(_text(WIDTH - 4, y + 4, _range(strip.values), "value end"))
    told = "; ".join(f"{strip.label} {', '.join(f'{100 * value:.0f}' for value in strip.values)}" for strip in strips)
    return _document(name, told, height, body)


def _range(values: Sequence[float]) -> str:
    low, high = f"{100 * min(values):.0f}", f"{100 * max(values):.0f}"
    return low if low == high else f"{low}–{high}"


def line_chart(name: str, x_name: str, curves: Sequence[Curve]) -> Markup:
    """Draw each curve over `x_name` (log scale), with intervals; a legend below names the curves."""
    left, right, top, height = 34, WIDTH - 12, 12, 250
    bottom = height - 40
    sizes = sorted({spot.x for curve in curves for spot in curve.spots})
    low, high = math.log10(sizes[0]), math.log10(sizes[-1])

    def place(spot: Spot) -> tuple[float, float]:
        share = (math.log10(spot.x) - low) / (high - low) if high > low else 0.5
        return left + 14 + (right - left - 28) * share, bottom - (bottom - top) * spot.y

    body = _heights(left, right, top, bottom)
    for size in sizes:
        x = place(Spot("", size, 0.0, None, None, 0))[0]
        body += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 16, f"{size:,.0f}", "tick middle")]
    for curve in curves:
        body += _curve(curve, [place(spot) for spot in curve.spots], bottom, top)
    body.append(_text((left + right) / 2, bottom + 34, x_name, "axis middle"))
    told = "; ".join(
        f"{curve.label}: " + ", ".join(f"{spot.x:,.0f}: {_span(spot.y, spot.low, spot.high)}" for spot in curve.spots)
        for curve in curves
    )
    keys = legend([curve.label for curve in curves], [curve.colour for curve in curves])
    return _document(name, told, height, body) + keys


def _curve(curve: Curve, places: Sequence[tuple[float, float]], bottom: float, top: float) -> list[Markup]:
    """Draw one curve; its spots are shifted a little by colour, so that whiskers do not cover each other."""
    shift, kind = 2.5 * (curve.colour - 2.5), f"c{curve.colour % 8}"
    moved = [(x + shift, y) for x, y in places]
    body = [_line(*start, *end, f"curve {kind}") for start, end in pairwise(moved)]
    for spot, (x, y) in zip(curve.spots, moved, strict=True):
        if spot.low is not None and spot.high is not None:
            ends = [bottom - (bottom - top) * bound for bound in (spot.low, spot.high)]
            body.append(_line(x, ends[0], x, ends[1], f"whisker thin {kind}"))
        body.append(_circle(x, y, 4, f"dot {kind}"))
    return body


def _heights(left: float, right: float, top: float, bottom: float) -> list[Markup]:
    """Draw the horizontal grid from 0 to 100 points."""
    body = []
    for tick in (0, 25, 50, 75, 100):
        y = bottom - (bottom - top) * tick / 100
        body += [_line(left, y, right, y, "grid"), _text(left - 6, y + 4, str(tick), "tick end")]
    return body


def roc_chart(name: str, points: Sequence[tuple[float, float]], chosen: tuple[float, float], colour: int) -> Markup:
    """Draw a ROC curve (points to the right and up, 0 to 1), the diagonal of chance, and the point that was chosen."""
    left, right, top, height = 68, 296, 12, 270
    bottom = height - 40

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return left + (right - left) * point[0], bottom - (bottom - top) * point[1]

    body = _heights(left, right, top, bottom)
    for tick in (0, 25, 50, 75, 100):
        x = place((tick / 100, 0))[0]
        body += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 16, str(tick), "tick middle")]
    body.append(_line(*place((0, 0)), *place((1, 1)), "zero"))
    for start, end in pairwise(sorted(points)):
        body.append(_line(*place(start), *place(end), f"curve c{colour % 8}"))
    x, y = place(chosen)
    body += [_circle(x, y, 5, f"dot c{colour % 8}"), _text(x + 9, y + 14, "chosen", "label")]
    body.append(
        _text(
            (left + right) / 2, bottom + 34, "right: unanswerable questions answered, up: answerable, %", "axis middle"
        )
    )
    told = f"upwards: answerable questions answered, %; chosen: {100 * chosen[1]:.0f} at {100 * chosen[0]:.0f}"
    return _document(name, told, height, body)

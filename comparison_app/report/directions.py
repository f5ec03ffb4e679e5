"""The report's section on published findings: which of them hold in this run; nothing where none were tested."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from comparison_app.report.judge import signed_points
from comparison_app.verdict import METRIC_WORDS, SLICE_WORDS

if TYPE_CHECKING:
    from jinja2 import Template


def directions_section(summary: Mapping[str, Any]) -> Markup:
    """Return the section as HTML, all text escaped; empty if the experiment does not ask for it."""
    if "directions" not in summary:
        return Markup("")
    return Markup(
        _template().render(
            directions=summary["directions"],
            forgetting=summary.get("forgetting") or [],
            metrics=METRIC_WORDS,
            slices=SLICE_WORDS,
        )
    )


def directions_markdown(summary: Mapping[str, Any]) -> str:
    """Return the section as markdown: one line a finding, its differences below it."""
    lines = []
    for item in summary["directions"]:
        lines.append(f"- **{item['outcome']}**: {item['claim']} ({item['source']})")
        lines += [f"  - {part_in_words(part)}" for part in item["parts"]]
        if not item["parts"]:
            lines.append(f"  - needs {item['needs']}")
    lines += [
        f"- forgetting, {row['adapter']}: {100 * row['before']:.0f} % of {row['questions']:.0f} general questions "
        f"right before training, {100 * row['after']:.0f} % after"
        for row in summary.get("forgetting") or []
        if row["before"] is not None
    ]
    return "\n".join(lines).replace("<", "&lt;")


def part_in_words(part: Mapping[str, Any]) -> str:
    """Write one difference: "rag − finetuned, token F1 on unseen pages: +31 (24 to 38) points, holds"."""
    reach = "no interval" if part["low"] is None else f"{signed_points(part['low'])} to {signed_points(part['high'])}"
    return (
        f"{part['text']}, {METRIC_WORDS[part['metric']]} on {SLICE_WORDS[part['slice']]}: "
        f"{signed_points(part['difference'])} ({reach}) points, published {part['expected']}: {part['outcome']}"
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["signed"] = signed_points
    text = resources.files("comparison_app.report").joinpath("directions.html").read_text(encoding="utf-8")
    return environment.from_string(text)

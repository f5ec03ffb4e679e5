"""The report's section on the judge: who won in its eyes, and how far to trust it; without a judge it says so."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from comparison_app.experiment import OVERALL
from comparison_app.judging.prompts import CRITERIA
from comparison_app.prices import money_in_words
from comparison_app.verdict import SLICE_WORDS

if TYPE_CHECKING:
    from jinja2 import Template


def judge_section(summary: Mapping[str, Any], currency: str) -> Markup:
    """Return the section as HTML, all text escaped; `summary` holds "judge" if one was asked."""
    judge = summary.get("judge")
    if judge is None:
        return Markup(_template().render(judge=None))
    return Markup(
        _template().render(
            judge=judge,
            currency=currency,
            pairs=judge["pairs"],
            words=SLICE_WORDS,
            criteria=CRITERIA,
            ratings=[(arm, [_mean(found[name]) for name in CRITERIA]) for arm, found in judge["ratings"].items()],
            trust=trust_rows(judge),
        )
    )


def judge_markdown(summary: Mapping[str, Any]) -> str:
    """Return the section as markdown: one line without a judge, else who won overall and how far to trust it."""
    judge = summary.get("judge")
    if judge is None:
        return "No judge model was asked: every score follows from the texts by rule."
    lines = [
        f"{judge['model']} gave {judge['judged']} of {judge['planned']} judgements"
        + (f" ({judge['stopped']})" if judge["stopped"] else "")
        + f"; {judge['failed']} of {judge['replies']} replies could not be read.",
        *([] if judge["usable"] else ["**Its verdicts are not to be used.**"]),
        *judge["warnings"],
    ]
    lines += [
        f"{row['a']} against {row['b']}: {row['a_wins']} to {row['b_wins']}, {row['ties']} ties "
        f"({row['flips']} flipped), on {row['n']} questions."
        for row in judge["pairs"]
        if row["slice"] == OVERALL
    ]
    lines += [f"{name}: {found} (without bias: {ideal})." for name, found, ideal in trust_rows(judge)]
    return "\n".join(f"- {_plain(line)}" for line in lines)


def trust_rows(judge: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (what was measured, what was found, what an unbiased judge would show)."""
    position, length = judge["position"], judge["length"]
    flips = "–" if position["flip_share"] is None else f"{position['flips']} of {position['pairs']} pairs"
    return [
        ("Prefers the answer shown first", _share(position["first"]), "50 %"),
        ("Verdicts that flip with the order", flips, "none"),
        ("Prefers the longer answer", _share(length["longer"]), "as often as it is better"),
        ("Prefers the longer of two equally good answers", _share(length["longer_at_equal_score"]), "50 %"),
        ("Says the same when asked again", _agreement(judge["self_agreement"]), "100 %"),
        ("Agrees with people's votes", _agreement(judge["people"]), "100 %, kappa 1"),
    ]


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["signed"] = signed_points
    environment.filters["money"] = money_in_words
    text = resources.files("comparison_app.report").joinpath("judge.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def signed_points(share: float) -> str:
    """Write a share as whole points with its sign, 0 without one."""
    rounded = round(100 * share)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def _mean(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['mean']:.1f}"
    return f"{found['mean']:.1f} ({found['low']:.1f}–{found['high']:.1f})"


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    reach = "" if found["low"] is None else f" ({100 * found['low']:.0f}–{100 * found['high']:.0f})"
    return f"{100 * found['share']:.0f} %{reach}, n = {found['n']}"


def _agreement(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    kappa = "undefined" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return f"{100 * found['share']:.0f} %, kappa {kappa}, n = {found['n']}"


def _plain(text: str) -> str:
    """Keep a text from starting markup."""
    return text.replace("\n", " ").replace("<", "&lt;")

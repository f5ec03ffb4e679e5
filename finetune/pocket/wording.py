"""Turn a sentence of a manual into questions that it answers: patterns, word forms and light variation.

No model is used: a pattern either fits the sentence's form (definition, purpose, condition, place, number, ...) or the
question is made from the sentence's content words. Questions are meant to train reading, not to be read by people.
"""

from __future__ import annotations

import random
import re

from finetune.pocket.lexicon import STOPWORDS, base_form, content_words

_UNIT = (
    r"(?:mm|cm|m|km|inches|inch|feet|ft|meters?|metres?|V|volts?|mV|kV|A|amps?|mA|W|watts?|kW|Hz|kHz|MHz|GHz|bytes?|KB|MB|GB|TB|"
    r"bits?|kbps|Mbps|fps|pixels?|px|%|percent|°C|°F|degrees|seconds?|secs?|ms|milliseconds?|minutes?|hours?|days?|weeks?|months?|"
    r"years?|times|rpm|kg|g|lbs?|psi|bar|ohms?|dB|characters|digits)"
)
_NUMBER_UNIT = re.compile(rf"\b(\d[\d.,]*)\s?({_UNIT})(?![A-Za-z])")
_NUMBER_NOUN = re.compile(
    r"\b(\d[\d,]*|two|three|four|five|six|seven|eight|nine|ten)\s+((?:[a-z\-]+\s)?[a-z\-]{3,}s)\b"
)
_NOUN_PHRASE = r"(?:(?:The|A|An|Each|Every|This|Your|Some|All)\s)?[A-Z`\"]?[\w`'\"/+.\-]*(?:\s[\w`'\"/+.\-()]+){0,7}?"
_COPULA = re.compile(rf"({_NOUN_PHRASE})\s(is|are|was|were)\s(.+)")
_MODAL = re.compile(rf"({_NOUN_PHRASE})\s(can|must|should|may|will|cannot)\s(not\s)?(.+)")
_VERBS_TEXT = """
allows? lets? provides? supports? contains? shows? displays? uses? requires? controls? defines? specif(?:y ies)
indicates? returns? determines? enables? includes? sends? creates? stores? opens? describes? represents?
appears? runs? starts? stops? works? offers? gives? needs? has have turns? sets? makes? takes? connects? reads?
writes? prevents? generates? performs? checks? adds? removes? affects? applies apply consists? refers? lists?
keeps? holds? measures? monitors? receives? detects? charges? helps? causes?
"""
_VERBS = "|".join(_VERBS_TEXT.split())
_VERB = re.compile(rf"({_NOUN_PHRASE})\s(?:also\s|only\s|then\s|automatically\s)?({_VERBS})\s(.+)")
_PURPOSE = re.compile(r"(?:In order to|To)\s([a-z][^,:]{6,90}),\s*(.+)")
_PURPOSE_LATE = re.compile(r"([A-Z][a-z]+\s.{5,80}?)\sto\s([a-z]+\s.{5,80})\.$")
_CONDITION = re.compile(r"(If|When|Whenever|Once|After|Before|While)\s([^,]{8,100}),\s*(?:then\s)?(.+)")
_CONDITION_LATE = re.compile(r"(.{12,}?),?\s(if|when|unless|until|before|after)\s([^,.]{8,90})\.$")
_YOU_CAN = re.compile(r"(?:.{0,40},\s)?[Yy]ou (?:can|may|could)\s(?:also\s|then\s)?(.{8,120}?)\.?$")
_LABEL = re.compile(r"([A-Z`][\w`\-/ ().+]{1,45})\s?(?::|–|—| - )\s+([A-Z`\"].{15,})")
_BECAUSE = re.compile(r"(.{12,110}?),?\s(because|since|due to|so that|in order to)\s(.+)")
_PLACE = re.compile(
    r"\b(located|found|stored|saved|placed|installed|shown|displayed|listed|mounted|available|connected|written)\s(in|on|at|under|inside|near|behind|to)\b"
)
_IMPERATIVE = re.compile(
    r"(Click|Select|Choose|Press|Open|Enter|Set|Use|Add|Remove|Connect|Turn|Install|Run|Check|Hold|Plug|Attach|Insert|Switch|Tap|Type|Go|Navigate|"
    r"Create|Configure|Enable|Disable|Delete|Download|Change|Specify|Move|Drag|Push|Pull|Close|Start|Stop|Restart|Replace|Copy|Save|Verify|Make)\s(.+)"
)


def lower_first(text: str) -> str:
    """Lower the first letter unless the first word looks like a name or an abbreviation."""
    first = text.split(" ", 1)[0]
    known = first in {"The", "A", "An", "This", "Your", "Each", "Every", "These", "It", "All", "Some", "You"}
    return text[0].lower() + text[1:] if known or (first.istitle() and len(first) > 1 and first.isalpha()) else text


def _subject(phrase: str) -> str | None:
    """Return a usable subject from a noun phrase, or None if it points elsewhere ("it", "this")."""
    words = phrase.strip().split()
    if not words or words[0].lower() in {
        "it",
        "this",
        "these",
        "they",
        "there",
        "that",
        "which",
        "you",
        "we",
        "if",
        "when",
        "to",
        "for",
        "in",
        "on",
        "note",
        "here",
        "and",
        "or",
        "as",
        "one",
        "with",
    }:
        return None
    subject = lower_first(phrase.strip())
    return re.sub(r"^(each|every|your|some|all)\s", "the ", subject)


def questions(sentence: str, rng: random.Random) -> list[str]:
    """Return the questions that the form of `sentence` suggests; none if it fits no pattern."""
    text = re.sub(
        r"^(?:Note|Tip|Warning|Important|Caution|By default|However|For example|Also|In addition|Additionally)[:,]\s*",
        "",
        sentence,
    )
    text = text[:1].upper() + text[1:]
    made: list[str] = []
    for rule in (_number, _purpose, _condition, _place, _reason, _label, _you_can, _modal, _copula, _verb, _imperative):
        made += rule(text, rng)
    return [question for question in made if 3 <= len(question.split()) <= 26]


def _number(text: str, rng: random.Random) -> list[str]:
    made: list[str] = []
    match = _NUMBER_UNIT.search(text)
    rest = content_words(_NUMBER_UNIT.sub(" ", text))[:7]
    if match and len(rest) >= 2:
        about = " ".join(rest[: rng.randint(2, 5)])
        time = re.match(r"(ms|milli|sec|min|hour|day|week|month|year)", match[2])
        opening = rng.choice(
            ("How long", "How much time", "How many " + match[2].rstrip("s") + "s")
            if time
            else ("How much", "What value", "How many " + match[2], "What is the limit for")
        )
        made.append(f"{opening} {about}?")
    counted = _NUMBER_NOUN.search(text)
    if counted:
        others = [w for w in content_words(text) if w not in counted[0]][:6]
        if others:
            made.append(f"How many {counted[2]} {rng.choice(('does', 'are there for', 'can'))} {' '.join(others[:4])}?")
    copula = _COPULA.match(text)
    if copula and re.search(r"\d", copula[3]) and (subject := _subject(copula[1])):
        made.append(f"What {copula[2]} {subject}?")
        made.append(
            rng.choice(("What value does {s} have?", "How much is {s}?", "What is the value of {s}?")).format(s=subject)
        )
    return made


def _purpose(text: str, rng: random.Random) -> list[str]:
    match = _PURPOSE.match(text)
    late = _PURPOSE_LATE.match(text) if _IMPERATIVE.match(text) else None
    goal = match[1] if match else late[2] if late else None
    if goal is None:
        return []
    goal = goal.replace("your ", "my ")
    return [how_question(goal, rng)]


def how_question(goal: str, rng: random.Random) -> str:
    """Ask how to reach `goal`, a verb phrase in its base form."""
    forms = (
        "How do I {g}?",
        "How can I {g}?",
        "How to {g}?",
        "How do you {g}?",
        "What do I do to {g}?",
        "What must I do to {g}?",
        "What is the way to {g}?",
        "I want to {g}. What should I do?",
        "How should I {g}?",
    )
    weights = (8, 5, 2, 2, 2, 2, 1, 1, 1)
    return rng.choices(forms, weights)[0].format(g=goal.strip(" ."))


def _condition(text: str, rng: random.Random) -> list[str]:
    match = _CONDITION.match(text)
    late = None if match else _CONDITION_LATE.match(text)
    if match is None and late is None:
        return []
    word, clause = (match[1].lower(), match[2]) if match else (late[2], late[3])  # type: ignore[index]
    clause = clause.replace("you want to", "I want to").replace("you ", "I ").replace("your ", "my ")
    word = "when" if word in {"whenever", "once"} else word
    result = [f"What happens {word} {clause}?", f"What should I do {word} {clause}?"]
    if late and (subject := late[1]):
        result.append(f"When {' '.join(content_words(subject)[:6])}?")
    if match and word == "if":
        result.append(f"{clause[:1].upper()}{clause[1:]}. What now?")
    return [rng.choice(result)]


def _place(text: str, rng: random.Random) -> list[str]:
    match = _COPULA.match(text)
    place = _PLACE.search(text)
    if place is None:
        return []
    if match and match[3].startswith(place[1]) and (subject := _subject(match[1])):
        return [
            rng.choice(
                (
                    f"Where {match[2]} {subject} {place[1]}?",
                    f"Where do I find {subject}?",
                    f"Where {match[2]} {subject}?",
                )
            )
        ]
    return [f"Where {' '.join(content_words(text[: place.start()])[:5])} {place[1]}?"]


def _reason(text: str, rng: random.Random) -> list[str]:
    match = _BECAUSE.match(text)
    if match is None:
        return []
    copula = _COPULA.match(match[1])
    if copula and (subject := _subject(copula[1])):
        return [f"Why {copula[2]} {subject} {copula[3]}?"]
    return [rng.choice((f"Why {lower_first(match[1])}?", f"What is the reason {lower_first(match[1])}?"))]


def _label(text: str, rng: random.Random) -> list[str]:
    match = _LABEL.match(text)
    if match is None or match[1].lower() in STOPWORDS:
        return []
    forms = (
        "What is {l}?",
        "What does {l} mean?",
        "What does {l} do?",
        "What is {l} for?",
        "Explain {l}.",
        "What is the {l} option?",
    )
    return [rng.choice(forms).format(l=match[1].strip())]


def _you_can(text: str, rng: random.Random) -> list[str]:
    match = _YOU_CAN.match(text)
    if match is None:
        return []
    what = match[1].replace("your ", "my ")
    return [rng.choice((how_question(what, rng), f"Can I {what}?", f"Is it possible to {what}?"))]


def _modal(text: str, rng: random.Random) -> list[str]:
    match = _MODAL.match(text)
    if match is None or (subject := _subject(match[1])) is None:
        return []
    verb = "can" if match[2] == "cannot" else match[2]
    rest = match[4].rstrip(". ")
    short = " ".join(rest.split()[: rng.randint(3, 9)])
    return [
        rng.choice(
            (
                f"{verb.capitalize()} {subject} {short}?",
                f"What {verb} {subject} {rest.split()[0]}?",
                f"{verb.capitalize()} {subject} {rest}?",
            )
        )
    ]


def _copula(text: str, rng: random.Random) -> list[str]:
    match = _COPULA.match(text)
    if match is None or (subject := _subject(match[1])) is None:
        return []
    verb, rest = match[2], match[3].rstrip(". ")
    if re.match(r"(?:used|intended|designed|required|needed)\b", rest):
        return [
            rng.choice(
                (
                    f"What {verb} {subject} used for?",
                    f"What {verb} {subject} for?",
                    f"What is the purpose of {subject}?",
                )
            )
        ]
    if re.match(r"(?:a|an|the|one|any)\b", rest):
        return [
            rng.choice(
                (
                    f"What {verb} {subject}?",
                    f"What {verb} {subject}?",
                    f"What is meant by {subject}?",
                    f"Define {subject}.",
                )
            )
        ]
    short = " ".join(rest.split()[: rng.randint(2, 7)])
    return [
        rng.choice(
            (
                f"{verb.capitalize()} {subject} {short}?",
                f"What about {subject}?",
                f"How {verb} {subject} {rest.split()[0]}?",
            )
        )
    ]


def _verb(text: str, rng: random.Random) -> list[str]:
    match = _VERB.match(text)
    if match is None or (subject := _subject(match[1])) is None:
        return []
    verb = base_form(match[2])
    auxiliary = "does" if verb != match[2] else "do"
    short = " ".join(match[3].rstrip(". ").split()[: rng.randint(2, 8)])
    forms = (
        f"What {auxiliary} {subject} {verb}?",
        f"What {auxiliary} {subject} do?",
        f"{auxiliary.capitalize()} {subject} {verb} {short}?",
        f"How {auxiliary} {subject} {verb} {short}?",
        f"What {match[2]} {short}?",
        f"Which one {match[2]} {short}?",
    )
    return [rng.choice(forms)]


def _imperative(text: str, rng: random.Random) -> list[str]:
    match = _IMPERATIVE.match(text)
    if match is None:
        return []
    verb, words = match[1].lower(), match[2].rstrip(". ").split()
    short = " ".join(words[: rng.randint(3, 9)]).rstrip(",")
    forms = (
        f"What should I {verb}?",
        f"Where do I {verb} {short}?",
        f"When do I {verb} {short}?",
        f"Do I have to {verb} {short}?",
        f"Should I {verb} {short}?",
        f"What do I {verb} {' '.join(words[-4:])}?",
        f"Why {verb} {short}?",
    )
    return [rng.choices(forms, (1, 2, 2, 2, 2, 2, 1))[0]]


def keyword_question(sentence: str, rng: random.Random) -> str | None:
    """Ask about the content words of `sentence`, in a frame that fits any; None if it has fewer than three."""
    words = content_words(sentence)
    if len(words) < 3:
        return None
    count = min(len(words), rng.randint(2, 6))
    start = rng.randint(0, len(words) - count) if rng.random() < 0.5 else 0
    picked = words[start : start + count] if rng.random() < 0.5 else rng.sample(words, count)
    frames = (
        "What about {k}?",
        "What does the manual say about {k}?",
        "What should I know about {k}?",
        "How does {k} work?",
        "Which {k}?",
        "What is {k}?",
        "When {k}?",
        "Where {k}?",
        "Is {k}?",
        "Can I {k}?",
        "How do I {k}?",
        "Why {k}?",
        "Tell me about {k}.",
        "What {k}?",
        "Does {k}?",
        "{k}?",
        "What happens with {k}?",
        "How much {k}?",
        "How many {k}?",
        "How long {k}?",
    )
    return rng.choice(frames).format(k=" ".join(picked))


def goal_of_heading(heading: str) -> str | None:
    """Return the verb phrase of a heading that names a task ("Deleting a queue", "How to log in"), or None."""
    text = heading.strip(" .:").replace("`", "")
    how = re.match(r"(?:How (?:to|do I)|To)\s+(.+)", text, re.IGNORECASE)
    if how:
        return lower_first(how[1])
    first, _, rest = text.partition(" ")
    if not rest:
        return None
    if first.endswith("ing") and first[0].isupper() and len(first) > 5:
        return f"{base_form(first.lower())} {rest}"
    return f"{first.lower()} {rest}" if _IMPERATIVE.match(text) else None

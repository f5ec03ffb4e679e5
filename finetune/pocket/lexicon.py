"""Words: which carry meaning, which mean the same, and what their base forms are."""

from __future__ import annotations

import random
import re

_STOPWORDS_TEXT = """
a about above after again all also am an and another any are aren't as at be been before being below between
both but by can can't could did do does doesn't don't done down during e.g. each etc every example finally first
following for from further had has have having he her here his how i i.e. if important in into is isn't it it's
its just make may might more most must need needs next no nor not note of off on once one ones only onto or
other our out over own per same second see shall she should so some such sure than that the their them then
there these they this those through tip to too under until up us very via want warning was we were what when
where which while who whom whose why will with within without won't would you your
"""
STOPWORDS = frozenset(_STOPWORDS_TEXT.split())


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9'’\-./]*[A-Za-z0-9]|[A-Za-z]|\d[\d.,]*")


_SYNONYM_GROUPS = """
remove, delete, take off
show, display
start, begin
stop, end
need, require
maximum, highest, largest
minimum, lowest, smallest
allow, let, permit
choose, select, pick
change, modify, alter, adjust
create, make, set up
configure, set up
enable, turn on, switch on, activate
disable, turn off, switch off, deactivate
install, fit, put in
verify, check, confirm
use, work with
view, see, look at
connect, attach, link
send, transmit
get, obtain
fix, repair
keep, retain
error, fault, problem
default, standard
update, upgrade
quickly, fast
open, launch
button, key
screen, display
vehicle, car
enter, type
replace, swap
clean, wash
occurs, happens
occur, happen
specify, give, state
increase, raise
decrease, lower, reduce
"""
_SYNONYMS: dict[str, tuple[str, ...]] = {
    word: tuple(other for other in group if other != word)
    for group in (line.split(", ") for line in _SYNONYM_GROUPS.split("\n") if line)
    for word in group
    if " " not in word
}


_ENDS_IN_E_TEXT = """
activat allocat archiv arrang assembl associat authenticat automat browse calibrat captur chang charg clos
combin compar compil complet compos configur creat customiz deactivat defin delet describ determin disabl driv
duplicat enabl enforc ensur escap estimat evaluat examin exchang execut explor fil fre generat giv glu guarante
handl hav hid imag imagin improv includ initializ integrat invit invok isolat issu leav licens link locat mak
manag maximiz measur merg migrat minimiz mov mut nam navigat notic observ operat optimiz organiz oversiz paus
plac prepar produc programm provid purchas quot receiv reduc releas remov renam replac requir resiz resolv
restor retriev reus rotat rout sav scal schedul secur separat serv shar simulat siz solv stat stor structur
subscrib tak trac translat troubleshoot tun typ unsubscrib updat upgrad us utiliz validat writ zon
"""
_ENDS_IN_E = frozenset(_ENDS_IN_E_TEXT.split())


def content_words(text: str) -> list[str]:
    """Return the words of `text` that carry its meaning, in order, each once."""
    found: list[str] = []
    for word in _WORD.findall(text):
        if word.lower() not in STOPWORDS and len(word) > 1 and word not in found:
            found.append(word)
    return found


def base_form(verb: str) -> str:
    """Return the base of a verb in -s or -ing ("allows" -> "allow", "deleting" -> "delete"); others unchanged."""
    irregular = {"has": "have", "does": "do", "is": "be", "are": "be", "goes": "go"}
    if verb in irregular:
        return irregular[verb]
    if verb.endswith("ing") and len(verb) > 5:
        return _from_gerund(verb[:-3])
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    if verb.endswith(("sses", "shes", "ches", "xes")):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else verb


def _from_gerund(stem: str) -> str:
    """Return the verb whose -ing form has this stem."""
    if stem in _ENDS_IN_E or stem.endswith(("at", "iz", "uc", "ul", "v", "dg", "abl")):
        return stem + "e"
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    return stem


def vary(question: str, rng: random.Random, strength: float = 0.3) -> str:
    """Reword lightly: a synonym here, a dropped article there, now and then all lower case or no question mark."""
    words: list[str] = []
    for word in question.split(" "):
        plain = word.strip("?.,").lower()
        if plain in _SYNONYMS and rng.random() < strength:
            words.append(word.lower().replace(plain, rng.choice(_SYNONYMS[plain])))
        elif plain in {"the", "a", "an"} and rng.random() < strength / 3:
            continue
        else:
            words.append(word)
    text = " ".join(words)
    if rng.random() < strength / 5:
        text = text.lower()
    return text.rstrip("?") if rng.random() < strength / 8 else text

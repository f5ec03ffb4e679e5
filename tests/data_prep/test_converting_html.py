"""Web pages become light markdown: the structure stays, the frame goes, nothing in them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.convert import Source, convert_bytes, convert_markdown
from data_prep.converting.charsets import decode, is_text
from data_prep.converting.html_blocks import blocks
from data_prep.converting.html_inline import Context
from data_prep.converting.html_page import convert_html
from data_prep.converting.profiles import read_profiles
from data_prep.corpus import ManifestEntry
from data_prep.errors import DataError
from data_prep.places import place_of

MANUAL = """<!DOCTYPE html><html><head><title>Pumps | Acme docs</title>
<meta name="generator" content="mkdocs-1.6"></head>
<body><div class="cookie-banner">We use cookies</div><nav><a href="/">Home</a></nav>
<main><h1 id="pumps">Pumps<a class="headerlink" href="#pumps">&para;</a></h1>
<p>A <b>pump</b> moves <a href="water.html">water</a>; see <code>pump --help</code>.<br>Second line.</p>
<h2 id="safety">Safety</h2>
<div class="admonition warning"><p class="admonition-title">Warning</p><p>Never run it dry.</p></div>
<ol start="3"><li>Open the valve<ul><li>slowly</li></ul></li><li>Press <kbd>On</kbd></li></ol>
<dl><dt id="head">Head</dt><dd>Height of the water column.</dd></dl>
<table><caption>Types</caption><thead><tr><th>Type</th><th>Power</th></tr></thead>
<tr><td rowspan="2">P12</td><td>400 W</td></tr><tr><td>450 W | max</td></tr></table>
<div class="highlight-python"><pre><span class="linenos">1</span>if dry:
    stop()</pre></div>
<figure><img src="img/pump.png" alt="The pump"><figcaption>Figure 1: from the left</figcaption></figure>
<img src="spacer.gif" width="1" height="1">
</main><footer>Copyright Acme</footer><script>track()</script></body></html>"""


def test_the_structure_of_a_manual_page_is_kept() -> None:
    """Headings, lists, definitions, tables, code, admonitions, captions; links keep their text."""
    page = convert_html(MANUAL, "x", url="https://acme.example/docs/pumps.html")
    text = page.markdown
    assert page.title == "Pumps"
    assert text.startswith("# Pumps\n\nA pump moves water; see `pump --help`.\nSecond line.\n")
    assert "## Safety\n\n> **Warning:** Never run it dry.\n" in text
    assert "3. Open the valve\n   - slowly\n4. Press `On`\n" in text
    assert "- **Head**: Height of the water column.\n" in text
    assert "Types\n\n| Type | Power |\n| --- | --- |\n| P12 | 400 W |\n| P12 | 450 W \\| max |\n" in text
    assert "```python\nif dry:\n    stop()\n```\n" in text
    assert "![The pump](https://acme.example/docs/img/pump.png)\n\nFigure 1: from the left\n" in text


def test_the_frame_of_a_page_goes() -> None:
    """Navigation, cookie banner, footer, scripts, permalinks and spacers leave no trace."""
    text = convert_html(MANUAL, "x").markdown
    for gone in ("cookies", "Home", "Copyright", "track", "¶", "spacer"):
        assert gone not in text


def test_anchors_lead_from_a_passage_to_its_section() -> None:
    """An offset in the document gives the address of the section it stands in."""
    page = convert_html(MANUAL, "x", url="https://acme.example/docs/pumps.html")
    assert [name for _, name in page.anchors] == ["pumps", "safety", "head"]
    for offset, name in page.anchors:
        assert page.markdown[offset:].lstrip("#-* ").lower().startswith(name)
    entry = ManifestEntry("pumps", "Pumps", "p", source="https://acme.example/docs/pumps.html", anchors=page.anchors)
    place = place_of(entry, page.markdown.index("Never run it dry"))
    assert place.link == "https://acme.example/docs/pumps.html#safety"


@pytest.mark.parametrize(
    "page",
    [
        "<html><body><p>a</p><script>alert(1)</script><p>&lt;script&gt;alert(1)&lt;/script&gt;</p></body></html>",
        "<html><body><p>see &lt;img src=x onerror=alert(1)&gt; and &lt;x y=1 onclick=alert(1)&gt;</p></body></html>",
        '<html><body><p>x <img src="javascript:alert(1)"> <a href="javascript:alert(1)">b</a></p></body></html>',
        "<html><body><h1>&lt;svg onload=alert(1)&gt;</h1><p>text</p></body></html>",
        "<html><body><table><tr><td>a</td><td>&lt;iframe src=x&gt;</td></tr></table></body></html>",
    ],
)
def test_no_script_of_a_page_survives(page: str) -> None:
    """Neither elements nor text that a markdown renderer would take for HTML, nor links that run."""
    text = convert_html(page, "x").markdown
    for live in ("<script", "<img", "<svg", "<iframe", "<x y", "javascript:"):
        assert live not in text


@pytest.mark.parametrize(
    "source",
    [
        "<scr<script>ipt>alert(1)</scr</script>ipt>",
        "[x](javascript:alert(1)) ![y](JaVaScRiPt:alert(1)) [z](&#106;avascript:alert(1))",
        "[ref]: javascript:alert(1)\n<javascript:alert(1)>",
        "<!-- a --><style>p{}</style><script>never closed",
        "<details ontoggle=alert(1)>x",
    ],
)
def test_no_script_of_markdown_survives(source: str) -> None:
    """Tags in tags, coded schemes, elements that are never closed."""
    text = convert_markdown(f"# T\n\n{source}\n", "t").markdown.lower()
    for live in ("<script", "<style", "<details", "](java", "](&#106;", "]: java", "<java"):
        assert live not in text
    assert "```\n<script>x</script>\n```" in convert_markdown("# T\n\n```\n<script>x</script>\n```\n", "t").markdown


def test_a_news_page_is_reduced_to_its_article() -> None:
    """Of a page whose frame no profile knows, the main text stays, with its lead and its picture."""
    sentence = "The council decided on Monday that the old bridge over the river will be rebuilt in stone. "
    lead = "The bridge will stand again by spring, says the mayor, and cost four million."
    links = "".join(f'<li><a href="/{n}">Another headline number {n} of today</a></li>' for n in range(30))
    page = f"""<html><head><meta name="description" content="{lead}"><title>Bridge - The Paper</title></head><body>
    <header><nav><ul>{links}</ul></nav></header><div class="teaser"><p>{lead}</p></div>
    <article><h1>Bridge to be rebuilt</h1><p>{sentence * 4}</p>
    <figure><img src="/b.jpg" alt="The bridge"><figcaption>The bridge in 1910</figcaption></figure>
    <p>{sentence * 3}</p><p>{sentence * 2}</p></article><aside><ul>{links}</ul></aside>
    <footer>Imprint</footer></body></html>"""
    text = convert_html(page, "x", url="https://paper.example/bridge").markdown
    assert text.startswith("# Bridge to be rebuilt\n")
    assert text.count(lead) == 1
    assert "![The bridge](https://paper.example/b.jpg)\n\nThe bridge in 1910\n" in text
    assert "Another headline" not in text
    assert "Imprint" not in text


def test_a_picture_of_a_generic_page_stays_where_it_stood() -> None:
    """Behind the passage that it followed, not at the end; equal passages are told apart by their order."""
    sentence = "The valve closes the line between the tank and the house when frost comes, and opens by itself. "
    again = "<p>Close the cover before you go on to the next step of this work.</p>"
    pages = {"a": "frost", "b": "thaw", "c": "storm"}
    steps = "".join(
        f'<h2>About {word}</h2><p>{sentence}{word.title()} matters.</p>{again}<img src="{name}.png" alt="Step {name}">'
        for name, word in pages.items()
    )
    page = f"""<html><head><title>Valve - Acme</title></head><body><header><a href="/">Acme</a></header>
    <nav><a href="x">Home</a></nav><div class="content"><h1>Valve</h1><p>{sentence}</p>{steps}
    <p>{sentence} That is all.</p></div><footer>Copyright Acme</footer></body></html>"""
    text = convert_html(page, "x", url="https://a.example/v.html").markdown
    marks = ["Frost matters", "![Step a](https://a.example/a.png)", "## About thaw", "Thaw matters", "![Step b]"]
    marks += ["## About storm", "Storm matters", "![Step c]", "That is all"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        ("Größe €".encode(), "iso-8859-1", "Größe €"),
        ("Größe €".encode("cp1252"), None, "Größe €"),
        (b'<meta charset="windows-1251">' + "Насос качает воду".encode("cp1251"), None, "Насос качает воду"),
        ("水泵".encode("utf-16"), None, "水泵"),
        ("ポンプ".encode("shift_jis"), "shift_jis", "ポンプ"),
        ("Größe".encode()[:-1], "utf-8", "Größ"),
        ("naïve café".encode("latin-1"), "utf-8", "naïve café"),
        (b"plain", "no-such-charset", "plain"),
        ("Strah\u00adlen\u00adschutz".encode(), None, "Strah\u00adlen\u00adschutz"),
    ],
)
def test_text_is_read_in_the_charset_that_fits(data: bytes, declared: str | None, text: str) -> None:
    """What is declared is a hint; valid UTF-8 is UTF-8, and a cut last character is left out."""
    assert decode(data, declared).endswith(text)
    assert is_text(decode(data, declared))


def test_a_profile_of_ones_own_says_where_the_text_is(tmp_path: Path) -> None:
    """Selectors in TOML: the content, what to drop, what is an admonition."""
    path = tmp_path / "own.toml"
    path.write_text(
        '[[profile]]\nname = "acme"\ndetect = ["div.acme"]\ncontent = ["div.acme .t"]\ndrop = [".x"]\nnote = [".box"]\n'
    )
    page = '<html><body><p>frame</p><div class="acme"><div class="t"><h1>A</h1><p class="x">no</p><p>yes</p>'
    page += '<div class="box"><p>Beware.</p></div></div></div></body></html>'
    text = convert_html(page, "x", own=read_profiles(path)).markdown
    assert text == "# A\n\nyes\n\n> **Note:** Beware.\n"


def test_what_is_wrong_in_a_profile_is_said_at_once(tmp_path: Path) -> None:
    """Unknown keys, missing keys and selectors that are none, all in one message."""
    path = tmp_path / "own.toml"
    path.write_text('[[profile]]\nname = "acme"\ndetect = ["div["]\ncolour = "red"\n')
    with pytest.raises(DataError) as caught:
        read_profiles(path)
    for part in ("own.toml", "unknown key 'colour'", "content is missing", "'div['"):
        assert part in str(caught.value)


def test_a_table_of_layout_gives_its_text() -> None:
    """A table of one column, or with headings in it, is no data."""
    cells = "<td><h1>T</h1><p>left</p></td><td><p>right</p></td>"
    page = f"<html><body><table role=presentation><tr>{cells}</tr></table></body></html>"
    assert convert_html(page, "x").markdown == "# T\n\nleft\n\nright\n"


@pytest.mark.parametrize("data", [b"", b"<html></html>", b"\x00\x01\x02\xff" * 500, b"<p> &nbsp; </p>"])
def test_a_page_without_text_is_refused(data: bytes) -> None:
    """No empty document is made."""
    with pytest.raises(DataError):
        convert_bytes(data, Source("html", "x"))


def test_boxes_in_a_tree_that_trafilatura_made_are_converted() -> None:
    """Its elements are plain lxml ones, which lack the methods of HTML elements; titles and what follows them stay."""
    from lxml import etree

    page = "<body><div class='note'><h4>Mind</h4>the <p>step.<a href='#x'>¶</a></p></div><p>On.</p></body>"
    assert blocks(etree.fromstring(page), Context()) == ["> **Mind:** the\n>\n> step.", "On."]


VALVE = """<h1>Valve guide</h1><p>The valve closes the line between the tank and the house when frost comes, and opens
again by itself once the air has been above four degrees for an hour.</p><h2 id="set">Setting the valve</h2>
<p>Run <code>valve --set 4</code> on the panel; the new value is kept after a loss of power and shown in the first line
of the display.</p><div class="note"><p>Only an electrician may open the housing of the drive.</p></div>
<p>Turn the wheel to the left until it clicks, then write down the number that stands under the arrow.</p>
<h2 id="terms">Terms</h2><dl><dt>Hysteresis</dt><dd>The difference between the temperatures of closing and of
opening.</dd></dl><h2 id="codes">Codes</h2><table><tr><th>Code</th><th>Meaning</th></tr><tr><td>E1</td><td>Sensor
broken</td></tr><tr><td>E2</td><td>Drive blocked</td></tr></table>
<pre><code class="language-python">if frost:
    valve.close()</code></pre><ol><li>Open the cover<ul><li>slowly</li></ul></li><li>Press the button</li></ol>
<p>After any repair the valve must be opened and closed three times before the cover is put back on.</p>"""


def framed(content: str, tag: str = "div") -> str:
    """Return a page with a site's frame around its content, such as no profile fits."""
    return f"""<html><head><title>Valve guide - Acme</title></head><body><header><a href="/">Acme</a></header>
    <nav><ul><li><a href="x">Home</a></li><li><a href="y">Manuals</a></li></ul></nav>
    <{tag} class="content">{content}</{tag}><footer>Copyright Acme 2026</footer></body></html>"""


@pytest.mark.parametrize("tag", ["main", "div"])
def test_the_structure_of_a_generic_page_is_kept(tag: str) -> None:
    """Where no profile fits: code in its sentence and with its language, boxes, definitions, tables, lists, anchors."""
    page = convert_html(framed(VALVE, tag), "x")
    text = page.markdown
    assert "\n\nRun `valve --set 4` on the panel; the new value is kept" in text
    assert "\n> **Note:** Only an electrician may open the housing of the drive.\n" in text
    assert "- **Hysteresis**: The difference between" in text
    assert "| Code | Meaning |\n| --- | --- |\n| E1 | Sensor broken |\n| E2 | Drive blocked |\n" in text
    assert "```python\nif frost:\n    valve.close()\n```\n" in text
    assert "1. Open the cover\n   - slowly\n2. Press the button\n" in text
    assert [name for _, name in page.anchors] == ["set", "terms", "codes"]
    for gone in ("Home", "Manuals", "Copyright"):
        assert gone not in text


def test_a_short_page_keeps_its_structure() -> None:
    """Of a page of a few lines its only main element is the document, however little a finder of text makes of it."""
    content = "<h1>Bleeding</h1><p>Open the screw until water comes.</p><h2>Tools</h2><ul><li>a key</li><li>a cup</li>"
    page = convert_html(framed(content + "</ul><h2 id=after>After</h2><p>Close the screw.</p>", "main"), "x")
    wanted = "# Bleeding\n\nOpen the screw until water comes.\n\n## Tools\n\n- a key\n- a cup\n\n## After\n\n"
    assert page.markdown == wanted + "Close the screw.\n"
    assert [name for _, name in page.anchors] == ["after"]

"""What a student's notebook shows can do nothing, and loses nothing that a reader needs."""

from __future__ import annotations

import base64
import html.parser
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from autograder.bounded import processor_time
from autograder.harmless import (
    MAX_BLANK,
    MAX_OUTPUTS,
    MAX_PICTURE,
    MAX_RUN,
    harmless_code,
    harmless_markdown,
    harmless_outputs,
    harmless_text,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
TEXT_TAGS = {"p", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"}
TEXT_TAGS |= {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "hr",
    "br",
    "del",
    "div",
    "span",
    "a",
    "input",
}  # the last: the box of a task


class Page(html.parser.HTMLParser):
    """The tags, attributes and link targets of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def shown(markdown: str) -> str:
    """HTML as nbconvert makes it for feedback and formgrader."""
    return MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(markdown)


def assert_harmless(markdown: str) -> None:
    page = Page(shown(harmless_markdown(markdown)))
    assert page.tags <= TEXT_TAGS
    assert not {a for a in page.attributes if a.startswith("on")}
    for link in page.links:
        assert link.lower().startswith(("http://", "https://", "mailto:", "#"))


ATTACKS = [
    "<script>alert(1)</script>",
    "<SCRIPT\nsrc=//evil>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<style>body{display:none}</style>",
    "<iframe src=x>",
    "<base href=//evil>",
    "<meta http-equiv=refresh content=0>",
    "<form action=//evil><input></form>",
    "<!-- <script> --><script>alert(1)</script>",
    "<?php x ?>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "`x`<script>alert(1)</script>`",
    "$<img src=x onerror=alert(1)>$",
    "\\(<img src=x onerror=alert(1)>\\)",
    "$$\n<script>alert(1)</script>\n$$",
    "\\begin{align}<script>alert(1)</script>\\end{align}",
    "[x](javascript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x]( \tjavascript:alert(1))",
    "[x](\njavascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](vbscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](file:///etc/passwd)",
    "[x](//evil)",
    "[x][a]\n\n[a]: javascript:alert(1)",
    "[a]\n\n> [a]: javascript:alert(1)",
    "[^1]\n\n[^1]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "![x](http://evil/seen.png)",
    "![x][a]\n\n[a]: http://evil/seen.png",
    "![](/etc/passwd)",
    "```mermaid\ngraph TD; A-->B; click A call alert()\n```",
    "~~~ mermaid\ngraph\n~~~",
    "> ```mermaid\n> graph\n> ```",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_markdown_cannot_act(attack: str) -> None:
    assert_harmless(attack)
    assert_harmless(f"# Answer\n\n- {attack}\n\n| a |\n|---|\n| {attack} |\n")


def test_the_page_would_act_without_us() -> None:
    """The oracle of these tests sees what it looks for."""
    acts = 0
    for attack in ATTACKS:
        page = Page(shown(attack))
        acts += bool(page.tags - TEXT_TAGS) or any(
            not link.lower().startswith(("http://", "https://", "mailto:", "#")) for link in page.links
        )
    assert acts > len(ATTACKS) / 2


PIECES = [
    "script",
    "javascript:alert(1)",
    "img src=x onerror=f()",
    "http://x",
    "```",
    "mermaid",
    "> ",
    "&#106;",
    "&lt;",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*"<>[]():!`$\\\n\t a~|/^", *PIECES]), max_size=25))
def test_no_mixture_of_markdown_can_act(parts: list[str]) -> None:
    assert_harmless("".join(parts))


@pytest.mark.parametrize("command", ["href", "url", "style", "class", "cssId", "require", "unicode", "htmlData"])
def test_mathjax_commands_that_act_are_broken(command: str) -> None:
    assert f"\\{command}" not in harmless_markdown(f"$\\{command}{{javascript:alert(1)}}{{x}}$")


@pytest.mark.parametrize("entity", ["&#104;", "&#104", "&#x68;", "&#X00068;", "&#0000104;"])
@pytest.mark.parametrize("backslash", ["\\\\", "&#92;", "&bsol;", "&#x5c;"])
def test_mathjax_commands_in_disguise_are_broken(backslash: str, entity: str) -> None:
    """What neither we nor Markdown read as a formula, a browser's page may, with all entities replaced."""
    text = f"{backslash}begin{{equation}}{backslash}{entity}ref{{javascript:alert(1)}}{{x}}{backslash}end{{equation}}"
    page = html.unescape(shown(harmless_markdown(text)))
    assert "ref{javascript" in page and "\\href" not in page


@pytest.mark.parametrize("text", ["&lt;b&gt;", "&alpha; &amp; &#8364; &#x3b1; &#60;b&#62;", "R&D #104; &#1041;"])
def test_other_entities_stay(text: str) -> None:
    assert harmless_markdown(text) == text


@pytest.mark.parametrize("text", ["`" * 20_000, "~" * 20_000, "&#" * 10_000, "&#0" * 6_000, "\n" * 20_000])
def test_no_text_takes_long_to_be_made_harmless(text: str) -> None:
    with processor_time(1):  # a hundredth is enough
        harmless_markdown(text)


def test_what_sets_code_slowly_is_shortened_and_nothing_else() -> None:
    assert harmless_code("a" + "\n \t" * 5_000 + "\nb", 200_000) == "a" + "\n" * (MAX_BLANK + 1) + "b"
    assert harmless_code(f"x ={' ' * 90_000}1", 200_000) == f"x ={' ' * MAX_RUN}1"
    assert harmless_code(f"'%{'0' * 90_000}'", 200_000) == f"'%{'0' * MAX_RUN}…'"
    ordinary = "def f(x):\n\n\n    # three\n    return 'a  b' * 1_000_000  \n" * 50
    assert harmless_code(ordinary) == ordinary
    assert harmless_markdown("a" + "\n" * 500 + "b") == "a" + "\n" * (MAX_BLANK + 1) + "b"


def test_nothing_of_an_ordinary_answer_is_lost() -> None:
    answer = (
        "# Why\n\nThe gradient is $p_k - 1[k = y]$, so $a<b$ and $c>d$ when `x < 0 & y > 1`.\n\n"
        "1. first\n2. *second* and **third**\n\n> a quotation\n\n```python\nif a < b and b > c:\n    f(x)\n```\n\n"
        "| λ | accuracy |\n|---|---|\n| 0.1 | 39% |\n\nSee [the notes](https://example.org/notes) & others."
    )
    page = shown(harmless_markdown(answer))
    kept = Page(page)
    assert {"h1", "ol", "em", "strong", "blockquote", "table", "code", "a"} <= kept.tags
    assert "https://example.org/notes" in kept.links
    for words in ("$p_k - 1[k = y]$", "$a&lt; b$ and $c&gt;d$", "x &lt; 0 &amp; y &gt; 1", "39%", "a quotation"):
        assert words in page


def test_harmless_markdown_is_the_same_when_made_harmless_again() -> None:
    for attack in ATTACKS:
        once = harmless_markdown(attack)
        assert harmless_markdown(once) == once


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x00b\x08c\x7fd\x9be", "abcde"),
        ("line\nnext\ttab", "line\nnext\ttab"),
        ("\u202etxt.exe\u2066", "txt.exe"),
        ("half \ud800 of", "half  of"),
        (["a", 5, "b"], "ab"),
        (None, ""),
        ({"a": 1}, ""),
    ],
)
def test_harmless_text(text: object, kept: str) -> None:
    assert harmless_text(text) == kept
    kept.encode()


def test_long_text_is_cut_and_says_so() -> None:
    cut = harmless_text("a" * 50, limit=10)
    assert cut == "a" * 10 + "\n… (30 more characters)"
    assert len(harmless_text("a" * 10**7)) < 30_000


def picture(raw: bytes = PNG, kind: str = "image/png", **data: object) -> dict[str, object]:
    encoded = base64.b64encode(raw).decode()
    return {"output_type": "display_data", "data": {kind: encoded, **data}, "metadata": {"evil": 1}}


def test_pictures_and_text_stay_and_everything_else_goes() -> None:
    outputs = harmless_outputs(
        [
            picture(**{"text/html": "<script>1</script>", "text/plain": "<Figure>", "application/javascript": "1"}),
            {"output_type": "stream", "name": "stderr", "text": ["one\n", "two"]},
            {"output_type": "execute_result", "data": {"text/plain": "3", "text/latex": "x"}, "execution_count": 7},
            {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["\x1b[31mTraceback\x1b[0m"]},
            {"output_type": "update_display_data", "data": {"text/plain": "again"}},
            {"output_type": "display_data", "data": {"text/html": "<b>only HTML</b>"}},
            {"output_type": "display_data", "data": {"image/svg+xml": "<svg onload=alert(1)/>"}},
        ]
    )
    assert [o.output_type for o in outputs] == ["display_data", "stream", "display_data", "stream"]
    assert set(outputs[0].data) == {"image/png", "text/plain"} and outputs[0].metadata == {}
    assert outputs[1].text == "one\ntwo" and outputs[2].data == {"text/plain": "3"}
    assert outputs[3].text == "Traceback"


@pytest.mark.parametrize(
    "output",
    [
        picture(b"<svg onload=alert(1)>"),
        picture(b"\xff\xd8\xff", "image/png"),
        picture(PNG + b"0" * MAX_PICTURE),
        {"output_type": "display_data", "data": {"image/png": "not base64!"}},
        {"output_type": "display_data", "data": {"image/png": {"a": 1}}},
        {"output_type": "display_data", "data": "text"},
        {"output_type": ["stream"]},
        {"output_type": "stream"} | {"output_type": "unknown"},
        {},
        "text",
        None,
    ],
)
def test_what_is_no_output_is_dropped(output: object) -> None:
    assert harmless_outputs([output]) == []


def sized_png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\1\0\0\0\0"


def sized_jpeg(width: int, height: int) -> bytes:
    application = b"\xff\xe0\0\x10JFIF\0" + bytes(9)
    frame = b"\xff\xff\xc2\0\x11\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes(10)
    return b"\xff\xd8" + application + frame


@pytest.mark.parametrize(("kind", "made"), [("image/png", sized_png), ("image/jpeg", sized_jpeg)])
def test_a_small_file_of_a_gigantic_picture_is_dropped(kind: str, made: Callable[[int, int], bytes]) -> None:
    """A browser would take gigabytes for it."""
    for size, kept in (((6_000, 4_000), 1), ((16_000, 16_000), 0), ((65_535, 65_535), 0)):
        data = {kind: base64.b64encode(made(*size)).decode()}
        assert len(harmless_outputs([{"output_type": "display_data", "data": data}])) == kept, size


@pytest.mark.parametrize("outputs", [None, "text", {"a": 1}, 5])
def test_what_is_no_list_of_outputs_is_none(outputs: object) -> None:
    assert harmless_outputs(outputs) == []


def test_endless_outputs_are_cut() -> None:
    kept = harmless_outputs([{"output_type": "stream", "text": "x"}] * 1000)
    assert len(kept) == MAX_OUTPUTS + 1 and "more outputs" in kept[-1].text

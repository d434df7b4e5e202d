"""Markdown with formulas as MathML, which browsers set by themselves: no script, no fonts, no network."""

from __future__ import annotations

import html
from functools import lru_cache

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class MathMLRenderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, with MathML in the place of formulas that a script would set later."""

    def block_math(self, body: str) -> str:
        """A formula of its own."""
        return formula(body, display=True)

    def inline_math(self, body: str) -> str:
        """A formula in a line."""
        return formula(body)

    def latex_environment(self, name: str, body: str) -> str:
        r"""``\begin{align} … \end{align}``."""
        return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)


def markdown_to_html(text: str, *, escape: bool = False) -> str:
    """HTML of Markdown; with `escape`, tags in it are shown rather than obeyed, and links lead to the web only."""
    renderer = MathMLRenderer(escape=escape, allow_harmful_protocols=not escape, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(text)


@lru_cache(maxsize=4096)
def formula(latex: str, display: bool = False) -> str:
    """MathML of a formula; one that cannot be read is shown as it was written."""
    try:
        return convert(latex.strip(), display="block" if display else "inline")
    except Exception:  # the library raises many kinds, KeyError and IndexError among them
        return f"<code>{html.escape(latex)}</code>"

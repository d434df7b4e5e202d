"""Make what a student's notebook shows harmless: pictures and text stay, everything that can act goes."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote

from nbformat.v4 import new_output

MAX_OUTPUTS = 30  # of one cell
MAX_TEXT = 20_000  # characters of one output
MAX_PICTURE = 3 << 20  # bytes
MAX_PIXELS = 40_000_000  # of a picture, each of which takes a browser four bytes however small the file is
_MATHJAX = re.compile(r"\\(?=(class|cssId|data|href|mmlToken|require|style|unicode|url)(?![A-Za-z])|html)")
_ATTACHED = re.compile(r"!\[[^\]\n]{0,200}\]\(attachment:([^)\n]{1,200})\)")
_LETTER = re.compile(r"&(?:#0*(?P<number>\d{1,3})(?!\d)|#[xX]0*(?P<hex>[0-9a-fA-F]{1,2})(?![0-9a-fA-F])|bsol);?")
MAX_BLANK = 10  # lines, one after another
MAX_RUN = 300  # blanks, or digits, one after another
_RUN = re.compile(rf"[^\S\n]{{{MAX_RUN + 1},}}|\d{{{MAX_RUN + 1},}}")
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_ESCAPES = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)"  # terminals' own
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # control characters
    r"|[\u202a-\u202e\u2066-\u2069]"  # what makes text read backwards
    r"|[\ud800-\udfff]"  # halves of characters, which no file can hold
)


def harmless_text(value: object, limit: int = MAX_TEXT) -> str:
    """Text without terminal escapes and control characters, cut to a readable length."""
    if isinstance(value, list):
        value = "".join(v for v in value if isinstance(v, str))
    text = _ESCAPES.sub("", value[: 4 * limit] if isinstance(value, str) else "")
    return text if len(text) <= limit else text[:limit] + f"\n… ({len(text) - limit} more characters)"


def harmless_code(source: str, limit: int = MAX_TEXT) -> str:
    """Code to be shown; what a person would scroll over is shortened.

    Pygments, with which every page sets code in colours, takes time that grows with the square of the blank lines,
    blanks or digits in a row: twenty minutes for a cell that is small enough to be run.
    """
    return _shortened(harmless_text(source, limit))


def _shortened(text: str) -> str:
    lines: list[str] = []
    blank = 0
    for line in text.split("\n"):
        blank = 0 if line.strip() else blank + 1
        if blank <= MAX_BLANK:
            lines.append("" if blank else line)
    return _RUN.sub(lambda run: run[0][:MAX_RUN] + ("" if run[0].isspace() else "…"), "\n".join(lines))


def harmless_line(value: object, length: int) -> str:
    """A line of a student's choosing as plain characters, without what a page that sets mathematics would obey."""
    text = value[:length] if isinstance(value, str) else ""
    return _MATHJAX.sub(r"\\ ", "".join(c if c.isprintable() else " " for c in text))


def harmless_markdown(text: str) -> str:
    """Markdown whose HTML can do nothing, with every word, formula and line of code still there.

    A space is put where HTML would begin (what is no tag stays as it is: ``a < b``), where a link leads elsewhere than
    to the web, and where a picture would be fetched.  The Markdown is not parsed for that: whoever parses it next may
    see it otherwise.
    """
    text = _shortened(harmless_text(text))
    text = _LETTER.sub(_letter, text)  # a page that sets mathematics would read `\&#104;ref` as a command
    text = re.sub(r"<(?=[A-Za-z/!?])", "< ", text)
    text = re.sub(r"!(?=\[)", "! ", text)
    text = re.sub(r"\](?=\(|:)(?!(\(|:)[ \t]*(https?://|mailto:))", "] ", text)
    text = re.sub(
        r"((?<!`)`{3,}|(?<!~)~{3,})([ \t]*)mermaid", r"\1\2text", text
    )  # a language that nbconvert's page would run
    return _MATHJAX.sub(r"\\ ", text)


def _letter(entity: re.Match[str]) -> str:
    code = int(entity["number"]) if entity["number"] else int(entity["hex"] or "5c", 16)
    return chr(code) if code < 128 and (chr(code).isalpha() or code == 0x5C) else entity[0]


def harmless_answer(text: str, attachments: object) -> tuple[str, dict[str, dict[str, str]]]:
    """An answer in Markdown, and the pictures that were put into it, which are moved to its end.

    Parameters
    ----------
    text : str
        The answer; ``![…](attachment:name)`` stands for a picture.
    attachments : dict
        By name, each picture's base64 under its MIME type, as notebooks hold them.

    Returns
    -------
    str, dict
        Harmless text, and the attachments of a cell with it.
    """
    kept: dict[str, dict[str, str]] = {}
    known = attachments if isinstance(attachments, dict) else {}

    def moved(match: re.Match[str]) -> str:
        bundle = known.get(match[1]) or known.get(unquote(match[1]))
        for kind, signature in PICTURES.items():
            picture = _picture(bundle.get(kind), signature) if isinstance(bundle, dict) else None
            if picture and len(kept) < MAX_OUTPUTS:
                name = f"picture-{len(kept) + 1}.{kind.partition('/')[2]}"
                kept[name] = {kind: picture}
                return f"(picture {len(kept)}, below)"
        return "(a picture that is no PNG or JPEG, or too large)"

    text = harmless_markdown(_ATTACHED.sub(moved, text))
    return "\n\n".join([text, *(f"![Picture {k}](attachment:{name})" for k, name in enumerate(kept, 1))]), kept


def split_answer(text: str, attachments: object) -> tuple[str, list[str]]:
    """An answer's text and its pictures as data URIs, for a page that shows no picture which Markdown names."""
    pictures: list[str] = []
    known = attachments if isinstance(attachments, dict) else {}
    for bundle in known.values():
        for kind, signature in PICTURES.items():
            picture = _picture(bundle.get(kind), signature) if isinstance(bundle, dict) else None
            if picture:
                pictures.append(f"data:{kind};base64,{picture}")
    return _ATTACHED.sub("", text), pictures


def harmless_outputs(outputs: object) -> list[Any]:
    """The outputs of a cell reduced to pictures and plain text."""
    kept: list[Any] = []
    for output in outputs if isinstance(outputs, list) else []:
        made = _output(output) if isinstance(output, dict) else None
        if made is not None:
            kept.append(made)
        if len(kept) >= MAX_OUTPUTS:
            kept.append(new_output("stream", name="stdout", text="… (more outputs are not shown)"))
            break
    return kept


def _output(output: dict[str, Any]) -> Any:
    kind = output.get("output_type")
    if kind == "stream":
        return new_output("stream", name="stdout", text=harmless_text(output.get("text")))
    if kind == "error":
        trace = output.get("traceback")
        return new_output("stream", name="stdout", text=harmless_text(trace if isinstance(trace, list) else ""))
    if kind not in ("display_data", "execute_result", "pyout"):
        return None
    data = output.get("data")
    if not isinstance(data, dict):
        return None
    kept = {kind: picture for kind in PICTURES if (picture := _picture(data.get(kind), PICTURES[kind]))}
    text = harmless_text(data.get("text/plain"), 2_000)
    if text:
        kept["text/plain"] = text
    return new_output("display_data", data=kept) if kept else None


def _picture(value: object, signature: bytes) -> str | None:
    """A picture's base64, decoded and encoded anew so that it is nothing else."""
    if isinstance(value, list):
        value = "".join(v for v in value if isinstance(v, str))
    if not isinstance(value, str) or len(value) > MAX_PICTURE * 4 // 3:
        return None
    try:
        raw = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not raw.startswith(signature) or _pixels(raw) > MAX_PIXELS:
        return None
    return base64.b64encode(raw).decode()


def _pixels(raw: bytes) -> int:
    """How many pixels a PNG or JPEG says that it has; 0 where it says nothing, and no program shows it."""
    if raw.startswith(PICTURES["image/png"]):
        return int.from_bytes(raw[16:20], "big") * int.from_bytes(raw[20:24], "big") if raw[12:16] == b"IHDR" else 0
    most, place = 0, 2
    while place + 9 <= len(raw) and raw[place] == 0xFF:
        marker = raw[place + 1]
        if marker == 0xFF:  # a byte that fills
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            height, width = (int.from_bytes(raw[place + k : place + k + 2], "big") for k in (5, 7))
            most = max(most, width * height)
        place += 2 + max(2, int.from_bytes(raw[place + 2 : place + 4], "big"))
    return most

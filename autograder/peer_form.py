"""The review form: a TOML file that a reviewer fills in with any text editor."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autograder.bounded import Overrun, bounded
from autograder.harmless import harmless_text

FORM = "review.toml"
LOWEST, HIGHEST = 1, 5
MAX_FORM = 256 << 10  # bytes
MAX_COMMENT = 20_000  # characters
SECONDS, MEMORY = 10.0, 256 << 20  # for reading a form, of which a large honest one needs a tenth
QUESTIONS = {
    "experiments": "Are the experiments there, and do the figures show what they should?",
    "numbers": "Are the results in a plausible range, and are surprising ones explained?",
    "answers": "Are the written answers right, and do they refer to the author's own figures?",
    "clarity": "Could you follow the report without its code?",
}


@dataclass
class Review:
    """What a reviewer says of one report.

    Attributes
    ----------
    scores : dict of str to int
        By question, from 1 to 5.
    comment : str
        For the author.
    """

    scores: dict[str, int]
    comment: str

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return sum(self.scores.values()) / len(self.scores)


@dataclass
class Filled:
    """What a form says.

    Attributes
    ----------
    packet : str
        The code of the packet it belongs to; "" where it says none.
    reviews : dict of str to Review
        The complete ones, by the report's code.
    faults : list of str
        What is not as it should be, a sentence each.
    """

    packet: str = ""
    reviews: dict[str, Review] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def empty_form(title: str, packet: str, reports: Sequence[str], questions: Mapping[str, str], due: str) -> str:
    """The form of a packet, to be filled in."""
    lines = [
        f"# Peer review: {title}",
        "#",
        "# Open each report_....html of this folder in your browser and read it. Then write, for each report,",
        f"# a whole number from {LOWEST} (poor) to {HIGHEST} (excellent) after every =, and between the ''' what you",
        "# would tell its author: what is good, what is wrong, what you would do next. Authors read it; they do not",
        "# learn who wrote it. Leave the codes as they are, save, and hand in this file and nothing else.",
        f"# Due: {due}.",
        "",
        f'packet = "{packet}"',
    ]
    width = max(len(q) for q in questions)
    for report in reports:
        lines += ["", f"[report.{report}]  # report_{report}.html"]
        lines += [f"{name:<{width}} = 0  # {question}" for name, question in questions.items()]
        lines += ["comment = '''", "", "'''"]
    return "\n".join(lines) + "\n"


def read_form(data: bytes, questions: Sequence[str]) -> Filled:
    """Read a filled form; what is wrong with it becomes a fault and stops nothing else.

    Parameters
    ----------
    data : bytes
        The file.
    questions : sequence of str
        Names of the questions that a review answers.
    """
    filled = Filled()
    if len(data) > MAX_FORM:
        filled.faults.append(f"The form has more than {MAX_FORM >> 10} KiB; it was not read.")
        return filled
    try:
        with bounded(time.monotonic() + SECONDS, MEMORY):  # a key of many parts takes the square of their number
            form = tomllib.loads(_text(data))
    except (Overrun, MemoryError):
        filled.faults.append("The form takes more time or memory than any needs; it was not read.")
        return filled
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        filled.faults.append(f"The form cannot be read as TOML: {str(error)[:200]}.")
        return filled
    packet, reports = form.get("packet"), form.get("report")
    if isinstance(packet, str):
        filled.packet = packet.strip()
    if not isinstance(reports, dict) or not reports:
        filled.faults.append("The form has no [report.…].")
        return filled
    for code, given in reports.items():
        review = _review(code, given, questions, filled.faults)
        if review is not None:
            filled.reviews[code] = review
    return filled


def _text(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # what some Windows editors write
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _review(code: str, given: object, questions: Sequence[str], faults: list[str]) -> Review | None:
    if not isinstance(given, dict):
        faults.append(f"Report {code[:40]}: nothing stands under its code.")
        return None
    scores = {}
    for name in questions:
        value = given.get(name, 0)
        if value == 0 and not isinstance(value, bool):
            faults.append(f"Report {code[:40]}: {name} is not answered.")
        elif type(value) is not int or not LOWEST <= value <= HIGHEST:
            shown = _shown(value)
            faults.append(f"Report {code[:40]}: {name} is {shown}, not a whole number from {LOWEST} to {HIGHEST}.")
        else:
            scores[name] = value
    comment = given.get("comment")
    text = harmless_text(comment, MAX_COMMENT).strip() if isinstance(comment, str) else ""
    says = any(c.isalnum() for c in text)  # else what looks empty would count: there are characters that nobody sees
    if not says:
        faults.append(f"Report {code[:40]}: the comment {'has no word in it' if text else 'is empty'}.")
    return Review(scores, text) if says and len(scores) == len(questions) else None


def _shown(value: object) -> str:
    """A value in a few characters; numbers of many digits and tables within tables cannot be written at all."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**9:
        return "a very large number"
    return str(value)[:20]

"""What the reviewers of a report say to its author: one page, without names."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from autograder.peer_form import HIGHEST, Review

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; max-width: 44rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8886; }}
td.n {{ text-align: right; white-space: nowrap; }}
.comment {{ white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid #3a6ea5; padding-left: .9rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{count} read your report. Their names are not told; the order says nothing.</p>
{reviews}
</body>
</html>
"""


def feedback_page(title: str, questions: Mapping[str, str], reviews: Sequence[Review]) -> str:
    """The page of one author; every word of a reviewer is escaped.

    Parameters
    ----------
    title : str
        Of the assignment.
    questions : mapping of str to str
        What the form asked, by name.
    reviews : sequence of Review
        In any order; they are put in one that tells nothing of who wrote them.
    """
    parts = []
    for number, review in enumerate(sorted(reviews, key=lambda r: r.comment), start=1):
        rows = "".join(
            f"<tr><td>{html.escape(question)}</td><td class=n>{review.scores[name]} of {HIGHEST}</td></tr>"
            for name, question in questions.items()
        )
        comment = f'<div class="comment">{html.escape(review.comment)}</div>'
        parts.append(f"<h2>Review {number}</h2>\n<table>{rows}</table>\n<p></p>\n{comment}")
    count = "One fellow student" if len(reviews) == 1 else f"{len(reviews)} fellow students"
    return PAGE.format(title=html.escape(f"Peer review: {title}"), count=count, reviews="\n".join(parts))

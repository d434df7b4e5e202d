"""Show what criteria found: a table for a notebook (HTML) and one for a terminal."""

from __future__ import annotations

import html
import re

import torch
from torch import Tensor

from course_utils.checking.unmet import Comparison
from course_utils.checking.verdict import CriterionResult, ExerciseResult

AGAIN = "The same as above."
PYTORCHS_SOURCE = re.compile(r" \(Triggered internally at [^)]*\)?")  # says nothing of the student's code
MAX_CELLS = 16  # rows and columns of a difference picture; more are cut out around the worst entry

# Text takes the colour of the notebook's theme, or of what is around it where a theme has no `--jp` variables (classic
# notebook, VS Code, Colab).  The verdicts are mixed with that colour: darker on white, lighter on black. The marks of
# importance outrank what notebooks say of tables: VS Code takes every border away, others stripe the rows.
STYLE = """
<style>
.course-check{font-size:13px;line-height:1.45;color:var(--jp-content-font-color1,inherit);max-width:62em}
.course-check table{border-collapse:collapse;width:100%;margin:.4em 0!important;table-layout:auto;font-size:inherit;
 color:inherit}
.course-check tr{background:transparent!important}
.course-check th,.course-check td{text-align:left!important;vertical-align:top!important;padding:.35em .6em!important;
 border-bottom:1px solid var(--jp-border-color2,rgba(128,128,128,.35))!important;background:transparent!important;
 white-space:normal!important;max-width:none!important}
.course-check .num{text-align:right!important;white-space:nowrap!important}
.course-check .verdict{white-space:nowrap!important;font-weight:600}
.course-check .yes{color:#1a8f5a;color:color-mix(in srgb,#1a8f5a 70%,currentColor)}
.course-check .no{color:#d1495b;color:color-mix(in srgb,#d1495b 70%,currentColor)}
.course-check .wait{color:#b07d12;color:color-mix(in srgb,#b07d12 70%,currentColor)}
.course-check .cause{margin-top:.25em}
.course-check .remark{opacity:.75;margin-top:.25em}
.course-check svg{max-width:100%;height:auto;margin-top:.4em}
.course-check svg text{fill:currentColor;font-size:11px}
</style>
"""


class CheckReport:
    """The results of one or more exercises, shown as a table.

    Parameters
    ----------
    results : list of ExerciseResult
        What `judge_exercise` returned.
    """

    def __init__(self, results: list[ExerciseResult]) -> None:
        self.results = results

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(c.passed for r in self.results for c in r.criteria)

    @property
    def score(self) -> float:
        """Points of the criteria that are met."""
        return sum(r.score for r in self.results)

    def __repr__(self) -> str:
        return "\n".join(_text(r) for r in self.results)

    def _repr_html_(self) -> str:
        return STYLE + "".join(exercise_html(r) for r in self.results)


def headline(result: ExerciseResult) -> str:
    """One sentence on an exercise as a whole."""
    name = result.exercise.name
    kinds = {c.unmet.kind for c in result.criteria if c.unmet}
    if not kinds:
        return f"{name}: all {len(result.criteria)} criteria are met."
    if untouched(result):
        return f"{name}: nothing is written yet."
    if without_result(result):
        return f"{name}: the result is None. Does the function end with `return`?"
    if "not defined" in kinds:
        return f"{name} is not defined yet: run its cell first."
    met = sum(c.passed for c in result.criteria)
    return f"{name}: {met} of {len(result.criteria)} criteria are met."


def without_result(result: ExerciseResult) -> bool:
    """Whether no criterion is met because no result ever came; one forgotten `return` of several is another thing."""
    return all(c.unmet is not None and c.unmet.kind in ("nothing written", "withheld") for c in result.criteria)


def untouched(result: ExerciseResult) -> bool:
    """Whether the exercise still raises the hand-out's exception; a function that returns None has a cause to tell."""
    return without_result(result) and not any(c.unmet and c.unmet.causes for c in result.criteria)


def exercise_html(result: ExerciseResult) -> str:
    """The table of one exercise; every text is escaped."""
    again, remarks = repeated(result), new_remarks(result)
    rows = "".join(_row(c, remarks[c.criterion.name], c.criterion.name in again) for c in result.criteria)
    advice = f'<div class="cause">{html.escape(result.advice)}</div>' if result.advice else ""
    return (
        f'<div class="course-check"><strong>{html.escape(headline(result))}</strong>'
        f" {result.score:g} of {result.max_score:g} points.{advice}"
        "<table><thead><tr><th>Verdict</th><th>Criterion</th><th class=num>Points</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def repeated(result: ExerciseResult) -> set[str]:
    """The criteria that say, word for word, what an earlier one has said: an exception, or what is not allowed."""
    seen: set[str] = set()
    again = set()
    for c in result.criteria:
        if c.unmet is not None and c.unmet.comparison is None and c.unmet.kind not in ("value", "withheld"):
            if c.unmet.message in seen:
                again.add(c.criterion.name)
            seen.add(c.unmet.message)
    return again


def new_remarks(result: ExerciseResult) -> dict[str, list[str]]:
    """What the function warned of, for each criterion by its name: at most three, and none that stands above."""
    seen: set[str] = set()
    shown = {}
    for c in result.criteria:
        own = dict.fromkeys(PYTORCHS_SOURCE.sub("", remark) for remark in c.remarks)
        shown[c.criterion.name] = [remark for remark in own if remark not in seen][:3]
        seen.update(own)
    return shown


def _row(result: CriterionResult, remarks: list[str], again: bool) -> str:
    criterion = result.criterion
    mark, css = ("✓ met", "yes") if result.passed else verdict(result)
    text = html.escape(criterion.title)
    if again:
        text += f'<div class="remark">{AGAIN}</div>'
    elif result.unmet is not None:
        text += f"<div>{html.escape(result.unmet.message)}</div>"
        text += "".join(
            f'<div class="cause"><em>Likely cause:</em> {html.escape(c)}</div>' for c in result.unmet.causes[:2]
        )
        if result.unmet.comparison is not None:
            text += picture(result.unmet.comparison)
    text += "".join(f'<div class="remark">Your function warned: {html.escape(r)}</div>' for r in remarks)
    points = f"{criterion.points if result.passed else 0:g} / {criterion.points:g}"
    return f'<tr><td class="verdict {css}">{mark}</td><td>{text}</td><td class=num>{points}</td></tr>'


def verdict(result: CriterionResult) -> tuple[str, str]:
    kind = result.unmet.kind if result.unmet else ""
    return {
        "nothing written": ("… to do", "wait"),
        "not defined": ("… to do", "wait"),
        "withheld": ("… waits", "wait"),
        "fault": ("… not judged", "wait"),
        "exception": ("✗ raised", "no"),
        "time": ("✗ too slow", "no"),
        "crash": ("✗ crashed", "no"),
        "forbidden": ("✗ not allowed", "no"),
    }.get(kind, ("✗ not met", "no"))


def _text(result: ExerciseResult) -> str:
    lines = [f"{headline(result)} {result.score:g} of {result.max_score:g} points."]
    lines += [f"  {result.advice}"] if result.advice else []
    again, remarks = repeated(result), new_remarks(result)
    for c in result.criteria:
        mark = "✓ met" if c.passed else verdict(c)[0]
        lines.append(f"  {mark:<13} {c.criterion.points:>4g}  {c.criterion.title}")
        if c.criterion.name in again:
            lines.append(f"{'':20}{AGAIN}")
        elif c.unmet is not None:
            lines.append(f"{'':20}{c.unmet.message}")
            lines += [f"{'':20}Likely cause: {cause}" for cause in c.unmet.causes[:2]]
        lines += [f"{'':20}Your function warned: {r}" for r in remarks[c.criterion.name]]
    return "\n".join(lines)


def picture(comparison: Comparison) -> str:
    """Expected, got and difference side by side as one SVG; "" for what has no two axes worth showing."""
    shape = comparison.expected.shape
    if len(shape) == 0 or comparison.expected.numel() < 2:
        return ""
    rows = _matrix(comparison.expected), _matrix(comparison.got)
    if len(shape) > 2:
        return ""
    worst = comparison.worst if len(shape) == 2 else (0, *comparison.worst)
    (r0, r1), (c0, c1) = (_window(worst[k], rows[0].shape[k]) for k in (0, 1))
    expected, got = (m[r0:r1, c0:c1] for m in rows)
    scale = max(float(expected.abs().max()), 1e-300)
    difference = got - expected
    panels = [("expected", expected, scale), ("yours", got, scale)]
    largest = float(torch.nan_to_num(difference, nan=0.0, posinf=0.0, neginf=0.0).abs().max())
    panels.append((f"difference (full colour: {largest:.2g})", difference, max(largest, 1e-300)))
    cell, gap = 14, 60
    width, height = expected.shape[1] * cell, expected.shape[0] * cell
    step = max(width, 150) + gap
    parts = []
    for k, (title, values, top) in enumerate(panels):
        x0 = k * step + 4
        parts.append(f'<text x="{x0}" y="12">{html.escape(title)}</text>')
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                parts.append(
                    f'<rect x="{x0 + j * cell}" y="{20 + i * cell}" width="{cell - 1}" height="{cell - 1}" '
                    f'fill="{_colour(float(values[i, j]) / top)}"><title>[{r0 + i}, {c0 + j}]: '
                    f"{float(values[i, j]):.4g}</title></rect>"
                )
        x, y = x0 + (worst[1] - c0) * cell, 20 + (worst[0] - r0) * cell
        parts.append(
            f'<rect x="{x - 1}" y="{y - 1}" width="{cell + 1}" height="{cell + 1}" fill="none" '
            'stroke="currentColor" stroke-width="2"/>'
        )
    shown = f"entries {c0} to {c1 - 1} of {rows[0].shape[1]}"
    if len(shape) == 2:
        shown = f"rows {r0} to {r1 - 1} of {rows[0].shape[0]}, columns {c0} to {c1 - 1} of {rows[0].shape[1]}"
    total = max(3 * step - gap + 8, 560)
    return (
        f'<svg role="img" aria-label="expected, yours and their difference" width="{total}" height="{height + 26}" '
        f'viewBox="0 0 {total} {height + 26}">{"".join(parts)}</svg>'
        f'<div class="remark">{shown}; orange is positive, blue negative, grey near 0; the frame marks the largest '
        "difference</div>"
    )


def _matrix(values: Tensor) -> Tensor:
    return values if values.ndim == 2 else values.reshape(1, -1)


def _window(worst: int, size: int) -> tuple[int, int]:
    start = min(max(worst - MAX_CELLS // 2, 0), max(size - MAX_CELLS, 0))
    return start, min(start + MAX_CELLS, size)


def _colour(value: float) -> str:
    """Orange for positive, blue for negative, grey near zero; black for what is not finite."""
    if value != value or abs(value) == float("inf"):
        return "#000"
    strength = min(abs(value), 1.0) ** 0.7
    end = (230, 120, 30) if value > 0 else (40, 110, 200)
    return "#" + "".join(f"{round(190 + (e - 190) * strength):02x}" for e in end)

"""A gradient check as a table for notebooks, legible on light and on dark."""

import math
from html import escape

from course_utils.gradients.judgement import Status
from course_utils.gradients.report import MARKS, GradientReport, ParameterReport, Verdict

# Text takes the colour of what is around it and no background is painted, so that any theme stays legible; the accents
# are JupyterLab's own where it has them, elsewhere mixed with the text's colour to read on white and on black.
# The class stands twice in the table's rules to outrank the notebook's own (right-aligned, striped). VS Code takes the
# borders away with a mark of importance, which only another such mark outranks.
STYLE = """
<style>
.gradient-check{font-size:13px;line-height:1.45;color:var(--jp-content-font-color1,inherit);max-width:66em}
.gradient-check.gradient-check table{border-collapse:collapse;margin:.4em 0;font-size:inherit;color:inherit}
.gradient-check.gradient-check tr{background:transparent}
.gradient-check.gradient-check :is(th,td){text-align:left;padding:.3em .7em;white-space:nowrap;
 background:transparent;border-bottom:1px solid var(--jp-border-color2,rgba(128,128,128,.35))!important}
.gradient-check.gradient-check .num{text-align:right;font-variant-numeric:tabular-nums}
.gradient-check.gradient-check .why td{white-space:normal;padding-left:1.6em;border-bottom-width:2px!important}
.gradient-check.gradient-check code{background:transparent;color:inherit;padding:0}
.gradient-check .verdict{font-weight:600}
.gradient-check .yes{color:var(--jp-success-color1,color-mix(in srgb,#1a8f5a 70%,currentColor))}
.gradient-check .no{color:var(--jp-error-color1,color-mix(in srgb,#d1495b 70%,currentColor))}
.gradient-check .wait{color:var(--jp-warn-color1,color-mix(in srgb,#b07d12 70%,currentColor))}
.gradient-check .remark{opacity:.75}
.gradient-check svg{display:block;overflow:visible}
.gradient-check svg text{fill:currentColor;font-size:10px;opacity:.75}
</style>
"""
COLOURS: dict[Verdict, str] = {"pass": "yes", "fail": "no", "too small to judge": "wait", "on kinks": "wait"}

LOWEST, HIGHEST = -13, 0
STRIP, HEIGHT = 190, 22
MOST_DOTS = 300


def report_html(report: GradientReport) -> str:
    """The whole report; every text of the caller's is escaped."""
    head = "".join(
        f"<th{' class=num' if k in (2, 3, 4) else ''}>{title}</th>"
        for k, title in enumerate(("Parameter", "Shape", "Checked", "Median", "Largest", "Verdict"))
    )
    head += f"<th>Relative errors, tolerance {report.tolerance:g}{_scale()}</th>"
    body = "".join(_row(cells, p, report.tolerance) for cells, p in zip(report.rows(), report.parameters, strict=True))
    foot = "".join(f"<div class=remark>{escape(text)}</div>" for text in (*report.notes, report.method))
    return (
        f"{STYLE}<div class=gradient-check><strong>{escape(report.headline)}</strong>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}</div>"
    )


def _row(cells: tuple[str, ...], parameter: ParameterReport, tolerance: float) -> str:
    columns = [f"<td><code>{escape(cells[0])}</code></td>", f"<td>{escape(cells[1])}</td>"]
    columns += [f"<td class=num>{escape(cell)}</td>" for cell in cells[2:5]]
    mark = MARKS[parameter.verdict]
    columns.append(f'<td class="verdict {COLOURS[parameter.verdict]}">{mark} {escape(cells[5])}</td>')
    columns.append(f"<td>{_strip(parameter, tolerance)}</td>")
    row = f"<tr>{''.join(columns)}</tr>"
    remarks = "".join(f"<div>{_emphasised(remark)}</div>" for remark in parameter.remarks())
    return row + (f"<tr class=why><td colspan=7>{remarks}</td></tr>" if remarks else "")


def _emphasised(remark: str) -> str:
    word, colon, rest = remark.partition(":")
    if word == "Cause" and colon:
        return f"<strong>Cause:</strong>{escape(rest)}"
    return escape(remark)


def _at(error: float) -> float:
    exponent = math.log10(error) if error > 0 else LOWEST
    return STRIP * (min(max(exponent, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)


def _scale() -> str:
    """The strip's axis, once, in the table's head."""
    ticks = "".join(
        f'<text x="{_at(10.0**exponent):.1f}" y="10" text-anchor="middle">1e{exponent}</text>'
        for exponent in (-12, -9, -6, -3)
    )
    ticks += f'<text x="{STRIP}" y="10" text-anchor="middle">1</text>'
    return f'<svg width="{STRIP}" height="13" role="img" aria-label="scale from 1e-13 to 1">{ticks}</svg>'


def _strip(parameter: ParameterReport, tolerance: float) -> str:
    """A dot for each sampled entry on a logarithmic axis, with a line at the tolerance."""
    judged = parameter.judged
    if judged is None or not len(judged.flat):
        return ""
    step = max(1, len(judged.flat) // MOST_DOTS)
    dots = []
    order = judged.error.argsort(descending=True)[::step]  # the worst is always among them
    for k, (error, status) in enumerate(zip(judged.error[order].tolist(), judged.status[order].tolist(), strict=True)):
        css = {Status.FAIL: "no", Status.PASS: "yes"}.get(Status(status), "wait")
        height = HEIGHT * (0.2 + 0.6 * (k * 0.618034 % 1))  # spread evenly, the same every time
        dots.append(
            f'<circle class={css} cx="{_at(error):.1f}" cy="{height:.1f}" r="2" fill="currentColor" '
            'fill-opacity=".55"/>'
        )
    line = _at(tolerance)
    label = (
        f"{parameter.name}: median relative error {parameter.median_error:.1e}, largest {parameter.largest_error:.1e}"
    )
    return (
        f'<svg width="{STRIP}" height="{HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<line x1="0" y1="{HEIGHT - 1}" x2="{STRIP}" y2="{HEIGHT - 1}" stroke="currentColor" stroke-opacity=".3"/>'
        f'<line x1="{line:.1f}" y1="0" x2="{line:.1f}" y2="{HEIGHT}" stroke="currentColor" '
        f'stroke-dasharray="3 2" stroke-opacity=".8"/>{"".join(dots)}</svg>'
    )

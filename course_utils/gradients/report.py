"""What a gradient check found: a table for the terminal, one for the notebook, and pictures."""

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from course_utils.gradients.diagnosis import Cause
from course_utils.gradients.judgement import Entries, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["pass", "fail", "too small to judge", "on kinks"]
MARKS: dict[Verdict, str] = {"pass": "✓", "fail": "✗", "too small to judge": "·", "on kinks": "^"}
WIDTH = 110


@dataclass(frozen=True)
class Worst:
    """The entry with the largest relative error."""

    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float


@dataclass(frozen=True)
class StepScan:
    """Relative errors of some entries over a range of steps.

    Attributes
    ----------
    steps : Tensor
        (s,) the steps h.
    errors : Tensor
        (s, m) relative errors.
    """

    steps: Tensor
    errors: Tensor


@dataclass(frozen=True)
class ParameterReport:
    """What was found for one parameter.

    Attributes
    ----------
    name : str
        Its name, such as ``W`` or ``layers[0].W``.
    shape : tuple of int
        Its shape.
    verdict : str
        ``"pass"``, ``"fail"``, ``"too small to judge"`` (both derivatives vanish in rounding) or ``"on kinks"``
        (f has a kink at every sampled entry that could be judged).
    entries : Entries or None
        Flat indices, analytic and numerical derivatives, relative errors and verdicts of the sampled entries;
        None where there was nothing to compare, as for a missing gradient.
    cause : Cause or None
        Why it is wrong, where that is known.
    """

    name: str
    shape: tuple[int, ...]
    verdict: Verdict
    entries: Entries | None = None
    cause: Cause | None = None

    @property
    def size(self) -> int:
        """Number of entries the parameter has."""
        return int(np.prod(self.shape))

    @property
    def judged(self) -> Entries | None:
        """The sampled entries that lie on no kink."""
        if self.entries is None:
            return None
        return self.entries.where(self.entries.status != Status.KINK)

    @property
    def checked(self) -> int:
        """Number of entries that were sampled."""
        return 0 if self.entries is None else len(self.entries.flat)

    @property
    def kinks(self) -> int:
        """Number of sampled entries where f has a kink."""
        return self._count(Status.KINK)

    @property
    def wrong(self) -> int:
        """Number of sampled entries that are wrong."""
        return self._count(Status.FAIL)

    def _count(self, status: Status) -> int:
        return 0 if self.entries is None else int((self.entries.status == status).sum())

    @property
    def median_error(self) -> float:
        """Median relative error of the sampled entries that lie on no kink; nan where there are none."""
        judged = self.judged
        return float(judged.error.median()) if judged is not None and len(judged.flat) else float("nan")

    @property
    def largest_error(self) -> float:
        """Largest relative error of the sampled entries that lie on no kink; nan where there are none."""
        worst = self.worst
        return worst.error if worst else float("nan")

    @property
    def worst(self) -> Worst | None:
        """The entry with the largest relative error; among equals, the one with the largest difference."""
        judged = self.judged
        if judged is None or not len(judged.flat):
            return None
        difference = (judged.analytic - judged.numeric).abs()
        rank = np.lexsort((-difference.numpy(), -judged.error.numpy().round(12)))
        at = int(rank[0])
        index = tuple(int(i) for i in np.unravel_index(int(judged.flat[at]), self.shape)) if self.shape else ()
        return Worst(index, float(judged.analytic[at]), float(judged.numeric[at]), float(judged.error[at]))

    def remarks(self) -> Iterator[str]:
        """Sentences that belong under the table: where it is worst, and why."""
        if self.verdict == "fail":
            worst = self.worst
            if worst is not None:
                sampled = "sampled " if self.checked < self.size else ""
                where = f" at {list(worst.index)}" if worst.index else ""
                verb = "is" if self.wrong == 1 else "are"
                yield (
                    f"{self.wrong:,} of {self.checked:,} {sampled}entries {verb} wrong; "
                    f"worst{where}: analytic {worst.analytic:.6g}, numerical {worst.numeric:.6g}."
                )
            if self.cause is not None:
                yield f"Cause: {self.cause.sentence}"
            else:
                yield "No known cause explains every entry by itself."
        elif self.verdict == "too small to judge":
            yield (
                "the derivatives are lost in the rounding of f. Where they should not vanish, either something "
                "inside f is float32, or f is a plain sum, which has no gradient through batch normalisation or "
                'softmax: pass upstream="random".'
            )
        elif self.entries is not None and self.verdict == "pass" and not bool(self.entries.numeric.any()):
            yield "f does not depend on it here: zero agrees with zero."
        if self.kinks:
            yield (
                f"{self.kinks:,} of {self.checked:,} entries lie on a kink of f (a ReLU at 0, a hinge at its margin, "
                "a tie of a maximum) and were skipped."
            )
        if self.verdict == "on kinks":
            yield "None is left to judge: check at other parameters, such as small random ones."


@dataclass(frozen=True)
class GradientReport:
    """The result of :func:`course_utils.gradients.check_gradients`.

    Shows itself as a table: fixed-width where it is printed, coloured in a notebook.

    Attributes
    ----------
    parameters : tuple of ParameterReport
        One for each parameter, in order.
    value : float
        f at the parameters (with an upstream: the sum of f times it).
    h, tolerance : float
        The step, and the largest relative error that passes.
    evaluations : int
        How often f was evaluated.
    vectorised : bool
        Whether that was done many at once.
    notes : tuple of str
        Remarks that concern no single parameter.
    """

    parameters: tuple[ParameterReport, ...]
    value: float
    h: float
    tolerance: float
    evaluations: int
    vectorised: bool
    notes: tuple[str, ...] = ()
    scan: Callable[[str], StepScan | None] = field(default=lambda name: None, repr=False)
    """Gives a parameter's errors over a range of steps; None where f is no longer what it was."""

    @property
    def passed(self) -> bool:
        """No parameter fails, and at least one was judged."""
        verdicts = [p.verdict for p in self.parameters]
        return "fail" not in verdicts and "pass" in verdicts

    @property
    def largest_error(self) -> float:
        """Largest relative error of all parameters; nan where nothing was compared."""
        errors = [p.largest_error for p in self.parameters if p.worst is not None]
        return max(errors, default=float("nan"))

    @property
    def causes(self) -> dict[str, Cause]:
        """Parameter → why its gradient is wrong, where that is known."""
        return {p.name: p.cause for p in self.parameters if p.cause is not None}

    def __getitem__(self, name: str) -> ParameterReport:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(f"{name!r}: the parameters are {', '.join(p.name for p in self.parameters)}")

    @property
    def headline(self) -> str:
        """One sentence on the whole."""
        failed = [p.name for p in self.parameters if p.verdict == "fail"]
        total = len(self.parameters)
        if failed and total == 1:
            return f"Gradient check: FAIL. The gradient of {failed[0]} is wrong."
        if failed:
            verb = "is" if len(failed) == 1 else "are"
            return f"Gradient check: FAIL. {len(failed)} of {total} gradients {verb} wrong."
        if not self.passed:
            return "Gradient check: NOTHING JUDGED."
        unjudged = sum(p.verdict != "pass" for p in self.parameters)
        rest = f" ({unjudged} could not be judged)" if unjudged else ""
        return f"Gradient check: pass{rest}."

    @property
    def method(self) -> str:
        """How the numbers were found, in one sentence."""
        how = ", vectorised" if self.vectorised else ""
        return (
            f"Centred differences in float64, h = {self.h:g}, tolerance {self.tolerance:g}; "
            f"f = {self.value:.6g}, {self.evaluations:,} evaluations{how}."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells: name, shape, entries checked, median and largest relative error, verdict."""
        rows = []
        for p in self.parameters:
            checked = "–" if p.entries is None else f"{p.checked:,} of {p.size:,}"
            errors = (f"{e:.1e}" if e == e else "–" for e in (p.median_error, p.largest_error))
            rows.append((p.name, str(p.shape), checked, *errors, p.verdict))
        return rows

    def __repr__(self) -> str:
        head = ("parameter", "shape", "checked", "median", "largest", "verdict")
        rows = self.rows()
        widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

        def line(cells: tuple[str, ...], mark: str) -> str:
            padded = [
                cell.rjust(width) if k in (2, 3, 4) else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return "  ".join([*padded[:-1], f"{mark} {cells[-1]}".rstrip()])

        out = [self.headline, "", line(head, " ")]
        out.append("─" * min(WIDTH, sum(widths) + 2 * len(widths)))
        out += [line(row, MARKS[p.verdict]) for row, p in zip(rows, self.parameters, strict=True)]
        remarks = [f"{p.name}: {remark}" for p in self.parameters for remark in p.remarks()]
        out.append("")
        for text in [*remarks, *self.notes, self.method]:
            out += textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        return "\n".join(out)

    def _repr_html_(self) -> str:
        from course_utils.gradients.html import report_html

        return report_html(self)

    def plot(self, *, most: int = 4) -> "Figure":
        """Draw analytic against numerical derivatives, where the errors lie, and how they depend on h.

        Parameters
        ----------
        most : int
            How many parameters to draw, the worst first.

        Returns
        -------
        matplotlib.figure.Figure
            One row for each parameter.
        """
        from course_utils.gradients.figures import plot_report

        return plot_report(self, most=most)


def verdict_of(entries: Entries) -> Verdict:
    """A parameter's verdict from those of its entries."""
    found = set(torch.unique(entries.status).tolist())
    if Status.FAIL in found:
        return "fail"
    # zero agreeing with zero says nothing where its neighbours are lost in rounding
    clear = (entries.status == Status.PASS) & ((entries.analytic != 0) | (entries.numeric != 0))
    if bool(clear.any()) or found == {int(Status.PASS)}:
        return "pass"
    return "on kinks" if Status.KINK in found else "too small to judge"

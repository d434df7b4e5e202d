"""The published numbers of an assignment, and whether a run of its reference notebook lands inside their ranges.

They stand in ``solutions/<name>/published.toml``, beside the notebook whose `numbers` they are compared with.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autograder.assignment import Assignment
from autograder.errors import CourseError
from course_utils.data.registry import read_registry

DEVIATIONS = 2
"""A single run may lie outside of a range by this many standard deviations of the seeds."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Path_ = Annotated[list[Text], Field(min_length=1)]
Verdict = Literal["inside", "inside within 2 sd", "above", "below", "shown only", "not measured", "missing"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class PublishedNumber(_Table):
    """A number of the notebook, and the range in which it was published.

    Attributes
    ----------
    at : list of str
        Where it stands in the notebook's `numbers`.
    shows : str
        What it is, in words.
    data : list of str
        The data sets for which the range holds.
    size : str
        Of what size the training is for which the range holds.
    source : str
        Who published the range, or which benchmark of ours measured it.
    low, high : float, optional
        The range, in the unit shown; at least one of them.
    sd : float
        Standard deviation over seeds, where it was measured.
    times : float
        The notebook's number times this is in the unit shown.
    unit : str
        The unit shown.
    better : {"higher", "lower"}, optional
        On that side of the range nothing is wrong.  Without it, both sides are.
    needs : str
        Another data set that the notebook needs for this number, and may lack.
    but : str
        Why this number is shown and decides nothing, such as another length of training.
    """

    at: Path_
    shows: Text
    data: Path_
    size: Text
    source: Text
    low: Finite | None = None
    high: Finite | None = None
    sd: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    times: Finite = 1.0
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    needs: str = ""
    but: str = ""

    @model_validator(mode="after")
    def _fits(self) -> PublishedNumber:
        if self.low is None and self.high is None:
            raise ValueError("needs low or high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is larger than high")
        return self

    @property
    def range(self) -> str:
        """The published range, in words."""
        return _range(self.low, self.high, self.unit)

    @property
    def accepted(self) -> str:
        """What a single run may reach, in words."""
        low = None if self.low is None or self.better == "lower" else self.low - DEVIATIONS * self.sd
        high = None if self.high is None or self.better == "higher" else self.high + DEVIATIONS * self.sd
        return "" if self.but else _range(low, high, self.unit)


class Published(_Table):
    """What ``published.toml`` says.

    Attributes
    ----------
    data : list of str
        The data sets on which the notebook runs, the one of the published numbers first.
    set_at : list of str
        Where the notebook's `numbers` name the set it ran on.
    numbers : list of PublishedNumber
        In the order in which they are shown.
    """

    data: Path_
    set_at: Path_
    numbers: list[PublishedNumber] = Field(default_factory=list, alias="number")


@dataclass(frozen=True)
class Comparison:
    """A number of a run beside its published range; `value` is in the unit shown, None where there is none."""

    number: PublishedNumber
    value: float | None
    verdict: Verdict

    @property
    def fails(self) -> bool:
        """Whether the number has left its range."""
        if self.verdict in ("above", "below"):
            return self.number.better != {"above": "higher", "below": "lower"}[self.verdict]
        return self.verdict == "missing"

    @property
    def reached(self) -> str:
        """The value with its unit."""
        return "–" if self.value is None else f"{self.value:.4g}{_unit(self.number.unit)}"


def read_published(assignment: Assignment) -> Published | None:
    """The published numbers of an assignment; None where it has no such file.

    Raises
    ------
    CourseError
        Where the file cannot be read, or a key of it is wrong.
    """
    path = assignment.solution_folder / "published.toml"
    try:
        published = Published.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CourseError(f"{path}: {place}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} cannot be read: {error}.") from None
    named = [*published.data, *(name for n in published.numbers for name in (*n.data, n.needs) if name)]
    unknown = next((name for name in named if name not in read_registry()), None)
    if unknown is not None:
        raise CourseError(f"{path}: {unknown!r} is no set of datasets/registry.toml.")
    return published


def compare(published: Published, numbers: dict[str, Any]) -> list[Comparison]:
    """Hold a notebook's `numbers` against what was published for the data set on which it ran."""
    ran_on = _at(numbers, published.set_at)
    return [_compared(n, _at(numbers, n.at), n.needs) for n in published.numbers if ran_on in n.data]


def _compared(number: PublishedNumber, value: Any, needs: str) -> Comparison:
    if value is None:
        return Comparison(number, None, "not measured" if needs else "missing")
    if not isinstance(value, int | float):  # "nan" and "inf" are texts in JSON
        return Comparison(number, None, "missing")
    shown = number.times * value
    if number.but:
        return Comparison(number, shown, "shown only")
    low = -math.inf if number.low is None else number.low
    high = math.inf if number.high is None else number.high
    verdict: Verdict
    if low <= shown <= high:
        verdict = "inside"
    elif low - DEVIATIONS * number.sd <= shown <= high + DEVIATIONS * number.sd:
        verdict = "inside within 2 sd"
    else:
        verdict = "above" if shown > high else "below"
    return Comparison(number, shown, verdict)


def _at(numbers: Any, path: list[str]) -> Any:
    for key in path:
        numbers = numbers.get(key) if isinstance(numbers, dict) else None
    return numbers


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _range(low: float | None, high: float | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if low is None:
        return f"≤ {high:.4g}{_unit(unit)}"
    if high is None:
        return f"≥ {low:.4g}{_unit(unit)}"
    return f"{low:.4g}{_unit(unit)}" if low == high else f"{low:.4g}–{high:.4g}{_unit(unit)}"

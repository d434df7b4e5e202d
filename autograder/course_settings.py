"""The course's settings: the table ``[tool.course]`` of the checkout's pyproject.toml."""

from __future__ import annotations

import difflib
import itertools
import math
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autograder.assignment import full_name
from autograder.errors import CourseError
from autograder.runner.namespaces import Limits
from autograder.session import TimeLimits

TABLE = "tool.course"
Percent = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class _Table(BaseModel):
    """A table whose keys are all known and whose values have their own types: no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LatePolicy(_Table):
    """What being late costs.

    Attributes
    ----------
    grace_minutes : float
        A submission this little after the deadline is not late.
    percent_per_day : float
        Of the points earned, for each day begun after the deadline.
    days_at_most : int, optional
        What is later than this many days earns no points; without it, only the percentages count.
    """

    grace_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    percent_per_day: Percent = 0.0
    days_at_most: Annotated[int, Field(ge=0)] | None = None

    def days(self, late_by: timedelta) -> int:
        """Days begun after the deadline; 0 within the minutes of grace."""
        if late_by <= timedelta(minutes=self.grace_minutes):
            return 0
        return math.ceil(late_by / timedelta(days=1))

    def kept(self, days: int) -> float:
        """The share of the points that a submission so many days late keeps, from 0 to 1."""
        if self.days_at_most is not None and days > self.days_at_most:
            return 0.0
        return max(0.0, 1.0 - days * self.percent_per_day / 100)


class BonusRule(_Table):
    """What bonus points do.  They lift a passing grade; a failing one they never lift.

    Attributes
    ----------
    steps_at_most : int
        By how many grades.
    when_late : bool
        Whether those of a late submission count.
    """

    steps_at_most: Annotated[int, Field(ge=0)] = 1
    when_late: bool = False


class SubmissionLimits(_Table):
    """What a submission may use while it is judged; memory is that beyond what the libraries take."""

    cell_seconds: Positive = 30.0
    criterion_seconds: Positive = 10.0
    submission_seconds: Positive = 300.0
    memory_mib: Count = 2048
    disk_mib: Count = 64
    output_kib: Count = 1024
    processes: Count = 64
    files: Count = 256

    def time_limits(self) -> TimeLimits:
        """The same, as the judge's session takes it."""
        return TimeLimits(self.cell_seconds, self.criterion_seconds, self.submission_seconds)

    def resources(self) -> Limits:
        """The same, as the jail takes it."""
        return Limits(self.memory_mib << 20, self.disk_mib << 20, self.processes, self.files, self.output_kib << 10)


class CourseSettings(_Table):
    """The course.

    Attributes
    ----------
    title : str
        As it stands on pages.
    timezone : str
        In which times without a zone are meant, such as "Europe/Stockholm".
    deadlines : dict of str to datetime
        By assignment, with time zones; an assignment without one is never late.
    late, bonus, limits
        Tables of their own.
    points_to_pass : dict of str to float
        By assignment; without it, the percentage of the lowest grade decides.
    grades : dict of str to float
        The passing grades, from the lowest to the highest, each with the percentage of the points from which it is
        given.
    failing_grade : str
        What everyone else gets.
    """

    title: Name = "Deep learning"
    timezone: Name = "UTC"
    deadlines: dict[str, datetime] = Field(default_factory=dict)
    late: LatePolicy = LatePolicy()
    points_to_pass: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    grades: dict[Name, Percent] = Field(default={"E": 50, "D": 60, "C": 70, "B": 80, "A": 90}, min_length=1)
    failing_grade: Name = "F"
    bonus: BonusRule = BonusRule()
    limits: SubmissionLimits = SubmissionLimits()

    @model_validator(mode="after")
    def _fits(self) -> CourseSettings:
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"timezone: {self.timezone!r} is no time zone; one looks like 'Europe/Stockholm'"
            ) from None
        for name, when in self.deadlines.items():
            if when.tzinfo is None:
                if "timezone" not in self.model_fields_set:
                    raise ValueError(
                        f"deadlines.{name}: {when} has no time zone; write +01:00 after it, or set timezone"
                    )
                self.deadlines[name] = when.replace(tzinfo=zone)
        steps = list(self.grades.values())
        if any(a >= b for a, b in itertools.pairwise(steps)):
            raise ValueError("grades: each grade needs a higher percentage than the one before it")
        if self.failing_grade in self.grades:
            raise ValueError(f"failing_grade: {self.failing_grade!r} is one of the passing grades too")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)


def read_settings(root: Path) -> CourseSettings:
    """Read the settings of a checkout; what is not there has its default.

    Parameters
    ----------
    root : Path
        The folder that holds assignments/, solutions/ and pyproject.toml.

    Raises
    ------
    CourseError
        Where a key is not known or has a wrong value; names it.
    """
    path = root / "pyproject.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("course", {})
    except FileNotFoundError:
        table = {}
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} cannot be read: {error}.") from None
    if not isinstance(table, dict):
        raise CourseError(f"{path}: {TABLE} is no table; begin it with a line [{TABLE}].")
    for key in ("deadlines", "points_to_pass"):
        if isinstance(table.get(key), dict):
            table[key] = _with_full_names(path, root, key, table[key])
    try:
        return CourseSettings.model_validate(table)
    except ValidationError as error:
        raise CourseError(f"{path}: {_sentence(error.errors()[0])}") from None


def _with_full_names(path: Path, root: Path, key: str, values: dict[str, Any]) -> dict[str, Any]:
    """The same values by the assignments' full names: "a1" is "a1_linear_classifiers"."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        try:
            full = full_name(name, root)
        except CourseError as error:
            raise CourseError(f"{path}: {TABLE}.{key}.{name}: {error}") from None
        if full in made:
            raise CourseError(f"{path}: {TABLE}.{key} names {full} twice.")
        made[full] = value
    return made


def _sentence(error: Any) -> str:
    """What is wrong with which key, of one of pydantic's errors."""
    place = [str(part) for part in error["loc"] if part != "[key]"]
    key, given, kind = ".".join([TABLE, *place]), error["input"], error["type"]
    if kind == "extra_forbidden":
        return f"{key} is no setting.{_did_you_mean(place)}"
    if kind == "value_error":  # raised above, with the key in front
        return f"{TABLE}.{error['ctx']['error']}."
    told = error["msg"].removeprefix("Input should ").removeprefix("Value should ").removeprefix("String should ")
    told = {"be a valid dictionary": "be a table", "be a valid datetime": "be a date and time"}.get(told, told)
    return f"{key} should {told}, and is {given!r}." if not told[:1].isupper() else f"{key}: {told}; it is {given!r}."


def _did_you_mean(place: list[str]) -> str:
    model: Any = CourseSettings
    for part in place[:-1]:
        model = model.model_fields[part].annotation
    known = list(model.model_fields)
    close = difflib.get_close_matches(place[-1], known, 1)
    return f" Did you mean {close[0]}?" if close else f" There are: {', '.join(known)}."

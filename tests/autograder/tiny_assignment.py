"""A made-up assignment of two exercises, for tests of the engine (which knows no assignment by name)."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''"""What stands before the first cell is no part of the notebook."""

# %% [markdown]
# # Tiny: doubling
#
# Words before coding, with $x \\mapsto 2x$.

# %% setup
import torch

numbers = {}

# %% setup="check"
import checks
from course_utils.checking import checker

check = checker(checks)


# %% [markdown]
# ## 1 Doubling


# %% exercise="double"
def double(x):
    """Twice x.  (n,) -> (n,)"""
    ### BEGIN SOLUTION
    secret_of_doubling = x + x  # the reference's own way
    return secret_of_doubling
    ### END SOLUTION


# %% check="double"
check("double")

# %% experiment="growth"
import matplotlib.pyplot as plt

x = torch.arange(5.0)
fig, ax = plt.subplots()
ax.plot(x, double(x), label="2x")
ax.set(title="Doubling", xlabel="x", ylabel="2x")
ax.legend()
numbers["growth"] = {"last": double(x)[-1], "shape": tuple(x.shape)}
print("the last value is", double(x)[-1].item())
plt.show()

# %% [markdown] written="why_double" points=3
# Why does doubling grow?
#
# <!-- BEGIN SOLUTION -->
# Because two is more than one, as everybody knows.
# <!-- END SOLUTION -->


# %% exercise="halve"
def halve(x):
    """Half of x.  (n,) -> (n,)"""
    ### BEGIN SOLUTION
    return double(x) / 4
    ### END SOLUTION


# %% check="halve"
check("halve")
'''

CHECKS = '''"""What your notebook checks."""

from course_utils.checking import Exercise
from course_utils.checking import expect
from course_utils.checking import prop

halve = Exercise("halve", bonus=True)
double = Exercise("double")


@double.criterion(points=1)
def doubles_every_entry(student, draw):
    """Every entry is doubled."""
    x = draw.normal(5)
    expect(student.double(x)).close_to(2 * x)


@halve.criterion(points=2)
def halves_every_entry(student, draw):
    """Every entry is halved."""
    x = draw.normal(5)
    expect(student.halve(x)).close_to(x / 2)


@prop
def described(value, twice=False):
    """Describing a value."""
    return (1 + twice) * type(value).__name__, value.entries


@prop
def adding(k):
    """The given function."""
    return lambda x: x + k if x < 100 else x / 0
'''

HIDDEN = '''"""What only grading checks."""

from assignments.tiny_doubling.checks import double
from course_utils.checking import expect


@double.criterion(points=1.5)
def doubles_large_numbers(student, draw):
    """Large entries are doubled too."""
    hidden_input = draw.normal(3, scale=1e12)
    expect(student.double(hidden_input)).close_to(2 * hidden_input)
'''

MISTAKES = '''"""Wrong solutions."""

from course_utils.checking import mistake


@mistake("double", caught_by=("doubles_every_entry", "doubles_large_numbers"), says="The square is not the double.")
def squares(x):
    the_square_by_mistake = x * x
    return the_square_by_mistake
'''

ALTERNATIVES = '''"""Right but unusual solutions."""

from course_utils.checking import alternative


@alternative("double", unusual="a multiplication")
def multiplies(x):
    an_unusual_product = 2.0 * x
    return an_unusual_product
'''

NAME = "tiny_doubling"


def write_tiny_assignment(
    root: Path,
    source: str = SOURCE,
    checks: str = CHECKS,
    hidden: str | None = HIDDEN,
    mistakes: str | None = MISTAKES,
    alternatives: str | None = ALTERNATIVES,
    name: str = NAME,
) -> Path:
    """Write the two folders of an assignment under `root`, which is returned."""
    handed_out, staff = root / "assignments" / name, root / "solutions" / name
    handed_out.mkdir(parents=True, exist_ok=True)
    staff.mkdir(parents=True, exist_ok=True)
    (handed_out / "checks.py").write_text(checks)
    files = {f"{name}.py": source, "hidden_checks.py": hidden, "mistakes.py": mistakes, "alternatives.py": alternatives}
    for file, text in files.items():
        if text is not None:
            (staff / file).write_text(text)
    return root

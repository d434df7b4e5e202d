"""What the engine raises where its input is at fault."""

from __future__ import annotations


class CourseError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do.  Commands print it and exit with 1."""

"""What the student's commands raise where their input is at fault."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do.  Commands print it and exit with 2."""

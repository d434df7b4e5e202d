"""What can go wrong with data, each with one sentence that says what to do."""

from __future__ import annotations


class DataError(RuntimeError):
    """A data set cannot be had; the message says why and what to do."""


class MissingDataError(DataError):
    """The set is not on this machine and nothing may or can be downloaded."""


class DamagedDataError(DataError):
    """A file of the set is there, but its bytes are not the ones the registry promises."""


class DownloadError(DataError):
    """No mirror delivered the file; what did arrive is kept, so that the next attempt resumes."""

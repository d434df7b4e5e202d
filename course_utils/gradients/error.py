"""The one exception of the gradient checker."""


class GradientCheckError(ValueError):
    """The check cannot be made as it was asked for.

    The message is one sentence that says what is in the way, where, and what to do.
    Faults of the *gradients* never raise: they are what is being judged, and they stand in the report.
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, not the inside of the checker."""
        return [f"{type(self).__name__}: {self}"]

"""The earlier exercises that a notebook's function builds on."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from course_utils.checking.exercise import Exercise
from course_utils.checking.ready_made import local_names, trees


def built_on(name: str, namespace: Mapping[str, Any], exercises: Mapping[str, Exercise]) -> list[str]:
    """The exercises that one calls by name, itself or through helpers and other exercises, or leans on.

    Parameters
    ----------
    name : str
        The exercise to look at.
    namespace : mapping
        The notebook's globals.
    exercises : mapping
        All exercises of the assignment, in its order.

    Returns
    -------
    list of str
        In the order of the assignment.
    """
    seen, queue = {name}, [name]
    while queue:
        current = queue.pop()
        found = set(exercises[current].leans_on) if current in exercises else set()
        for tree in trees(namespace.get(current)):
            used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - local_names(tree)
            found |= {n for n in used if n in namespace or n in exercises}
        queue += found - seen
        seen |= found
    return [e for e in exercises if e in seen and e != name]

"""The marks of a class as one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any


def summary_csv(results: Mapping[str, dict[str, Any]]) -> str:
    """One line a student: points, every exercise's points, what went wrong, and what was odd."""
    exercises = list(dict.fromkeys(name for r in results.values() for name in r["exercises"]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["student", "score", "max_score", "bonus", *exercises, "diagnosis", "oddities"])
    for student, result in results.items():
        diagnosis = {n: e["diagnosis"] for n, e in result["exercises"].items() if e["diagnosis"]}
        scores = [result["exercises"].get(n, {}).get("score", "") for n in exercises]
        writer.writerow(
            [
                student,
                result["score"],
                result["max_score"],
                result["bonus"],
                *scores,
                json.dumps(diagnosis, ensure_ascii=False) if diagnosis else "",
                " ".join(result["oddities"]),
            ]
        )
    return stream.getvalue()

"""One page of what the reference notebooks gave: every figure, and every number beside the published one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from autograder.build import cell_id
from autograder.solve_all import Reference

TEMPLATES = Path(__file__).parent / "templates"
MOST = 8  # values of a list that are shown


@dataclass(frozen=True)
class Grid:
    """A table of numbers as texts; the first column says what they are."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Experiment:
    """What one experiment gave: pictures as data URIs, tables, and what it printed."""

    name: str
    figures: list[str]
    grids: list[Grid]
    printed: str
    seconds: float | None


def references_page(references: Sequence[Reference]) -> str:
    """The page, self-contained, of a run of several reference notebooks."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    comparisons = [c for r in references for c in r.comparisons]
    judged = [c for c in comparisons if c.verdict not in ("shown only", "not measured")]
    return environment.get_template("references.html.j2").render(
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        references=[(r, _experiments(r)) for r in references],
        inside=sum(not c.fails for c in judged),
        judged=len(judged),
        failed=[r for r in references if r.failure],
    )


def _experiments(reference: Reference) -> list[Experiment]:
    """In the order of the notebook; then numbers and figures that belong to no experiment by name."""
    report = reference.report
    if not report:
        return []
    numbers, printed = dict(report["numbers"]), report.get("printed", {})
    names = list(reference.assignment.experiments)
    figures = _figures(reference.folder / "figures", names)
    seconds = report.get("seconds", {})
    return [
        Experiment(
            name=name,
            figures=figures.get(name, []),
            grids=grids(numbers[name]) if name in numbers else [],
            printed=printed.get(name, ""),
            seconds=seconds.get(cell_id(reference.assignment.cell("experiment", name))) if name in names else None,
        )
        for name in [*names, *(n for n in [*numbers, *figures] if n not in names)]
        if name in figures or name in numbers or name in printed
    ]


def _figures(folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Data URIs of the figures in `folder`, by the experiment after which each is named, in order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in folder.glob("*.png"):
        numbered = re.fullmatch(r"(.+)_(\d+)", path.stem)
        name, number = path.stem, 1
        if path.stem not in names and numbered:
            name, number = numbered[1], int(numbered[2])
        data = base64.b64encode(path.read_bytes()).decode()
        found.setdefault(name, []).append((number, f"data:image/png;base64,{data}"))
    return {name: [uri for _, uri in sorted(uris)] for name, uris in sorted(found.items())}


def grids(value: Any) -> list[Grid]:
    """Tables of a value of a notebook's `numbers`: one of rows and columns where its entries have the same keys."""
    if not isinstance(value, dict):
        return [Grid([], [["", shown(value)]])]
    alike = [v for v in value.values() if isinstance(v, dict)]
    columns = list(dict.fromkeys(key for v in alike for key in v))
    flat = all(not isinstance(x, dict) for v in alike for x in v.values())
    if alike and len(alike) == len(value) and flat and len(columns) <= MOST:
        rows = [[name, *(shown(v[c]) if c in v else "" for c in columns)] for name, v in value.items()]
        return [Grid(["", *columns], rows)]
    return [Grid([], [[" · ".join(path), shown(x)] for path, x in _leaves(value, ())])]


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]


def shown(value: Any) -> str:
    """A number, a text, a truth value, or a list of such, to read."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        texts = [shown(v) for v in value[:MOST]]
        return ", ".join(texts) + (f", … ({len(value):,} values)" if len(value) > MOST else "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

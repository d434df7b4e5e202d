"""Which submissions have code that is suspiciously alike.

Code is compared without comments, docstrings, layout, imports, code that is never run, names of one's own variables,
functions and attributes, and what the released notebook already had; in tokens, by the share that one longest common
subsequence covers (RapidFuzz's Indel similarity), or, where that is more, by the share of the lines that both have in
whatever order.  What an exercise's cell uses of functions in cells of the student's own counts as its own.  Right
solutions of a short exercise are alike by nature, so what counts is by how much two are more alike than two of this
class as a rule, and whether they have exercises the same that hardly any other two have.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rapidfuzz import fuzz
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

MAX_SOURCE = 100_000  # characters of a cell that is read as Python
MAX_TOKENS = 5_000  # of an exercise that are compared
ENOUGH_TOKENS = 25  # of an exercise, below which being alike says nothing
ENOUGH_IN_ALL = 60  # of all exercises of a pair that are compared
SAME_IN_CLASS = 0.95  # of the class as a rule, above which being alike says nothing
SUSPICIOUS = 0.75  # of the way from the class's rule to identical
OUTLYING = 3.0  # times the distance between the quartiles of all pairs, above the upper one
MAX_PAIRS = 1_000
MAX_LINE = 1_000  # characters of a line that are compared
MAX_WEIGHT = 20  # tokens of a line that count: a line of thousands says no more
MAX_CELLS = 200  # of a student's own, that exercises may use
SYNONYMS = {"axis": "dim", "keepdims": "keepdim"}  # arguments that torch knows by both names
CONVENTIONAL = {"torch.nn.functional": "F", "numpy": "np"}  # names that everybody gives these
FIRST_SYMBOL = 0x100
SAME = 0.98  # similarity of what is the same but for a slip of the pen
RARE = 0.02  # of the class's pairs: an exercise that so few have the same was hardly written twice
SAME_EXERCISES = 3  # such exercises that make a pair suspicious, whatever the others are
CLOSE = 1e-6  # of scores, which come from single precision
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Alike:
    """Two submissions that are more alike than the class's.

    Attributes
    ----------
    students : (str, str)
        Whose.
    score : float
        How far they are from the class's rule to identical, from 0 to 1, averaged by length over the exercises.
    exercises : dict of str to float
        The similarity of each exercise that says something, the most alike first.
    text : float
        Similarity of the text as it stands, comments and names included, of the same exercises.
    """

    students: tuple[str, str]
    score: float
    exercises: dict[str, float]
    text: float


def normalised(source: str, released: str = "") -> list[str]:
    """The lines of a cell's code that are the student's, in a form that layout, comments and names do not change.

    Parameters
    ----------
    source : str
        The cell.
    released : str
        The cell as it was handed out, whose lines are left out.
    """
    given = set(_lines(released))
    return [line for line in _lines(source) if line not in given]


@lru_cache(maxsize=1024)
def _lines(source: str) -> tuple[str, ...]:
    try:
        if len(source) > MAX_SOURCE:
            raise ValueError
        plain = ast.unparse(ast.fix_missing_locations(_Plain(tree := ast.parse(source)).visit(tree)))
    except UNREADABLE:  # not Python, or no code that anyone would read
        plain = re.sub(r"#.*", "", source[:MAX_SOURCE])
    return tuple(line.strip()[:MAX_LINE] for line in plain.splitlines() if line.strip() not in ("", "pass"))


class _Plain(ast.NodeTransformer):
    """Takes away docstrings, annotations, imports and dead branches, and gives all names of one's own one name."""

    def __init__(self, tree: ast.Module) -> None:
        self._bound: set[str] = set()
        self._attributes: set[str] = set()
        self._modules: dict[str, str] = {}
        for n in ast.walk(tree):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                self._bound.add(n.id)
            elif isinstance(n, ast.arg):
                self._bound.add(n.arg)
            elif isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)) and n.name:
                self._bound.add(n.name)
            elif isinstance(n, (ast.Import, ast.ImportFrom)):
                self._import(n)
            if isinstance(n, ast.ClassDef):
                self._attributes |= _own_attributes(n)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
        for alias in node.names:
            if alias.asname or module:
                full = module + alias.name
                self._modules[alias.asname or alias.name] = CONVENTIONAL.get(full, full.rpartition(".")[2])

    def visit_Import(self, node: ast.Import) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Constant):
            taken = node.body if node.test.value else node.orelse or [ast.copy_location(ast.Pass(), node)]
            return [self.visit(n) for n in taken]
        return self.generic_visit(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        if isinstance(node.test, ast.Constant) and not node.test.value:
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = "v" if node.name else None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = "v"
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if node.attr in self._attributes:
            node.attr = "v"
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        name = self._modules.get(node.id, "v" if node.id in self._bound else node.id)
        return ast.copy_location(ast.Name(name, node.ctx), node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.copy_location(ast.arg("v"), node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        self.generic_visit(node)
        node.arg = SYNONYMS.get(node.arg, node.arg) if node.arg else None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name, node.returns = "v", None
        match node.body[-2:]:  # v = …, return v
            case [ast.Assign([ast.Name(name)], value) as assigned, ast.Return(ast.Name(returned))] if name == returned:
                node.body[-2:] = [ast.copy_location(ast.Return(value), assigned)]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def _own_attributes(node: ast.ClassDef) -> set[str]:
    """The attributes that a class gives itself, and its methods but for those that others call by their names."""
    found = set()
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.args.args:
            itself = method.args.args[0].arg
            if method.name != "forward" and not method.name.startswith("__"):
                found.add(method.name)
            for n in ast.walk(method):
                if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and isinstance(n.value, ast.Name):
                    found |= {n.attr} if n.value.id == itself else set()
    return found


def with_what_it_uses(exercises: Mapping[str, str], others: Iterable[str]) -> dict[str, str]:
    """Each exercise's cell with the functions and other definitions of a student's own cells that it uses.

    Parameters
    ----------
    exercises : mapping
        By exercise the source of its cell.
    others : iterable of str
        The sources of the student's own cells.
    """
    defined: dict[str, ast.stmt] = {}
    for source in list(others)[:MAX_CELLS]:
        for statement in _statements(source):
            defined |= dict.fromkeys(_defines(statement), statement)
    if not defined:
        return dict(exercises)
    made = {}
    for exercise, source in exercises.items():
        wanted = _used(_statements(source))
        used: dict[str, ast.stmt] = {}
        while wanted := wanted & defined.keys() - used.keys():
            used |= {name: defined[name] for name in wanted}
            wanted = _used(used[name] for name in wanted)
        try:
            added = [ast.unparse(s) for s in dict.fromkeys(used[n] for n in sorted(used))]
        except UNREADABLE:
            added = []
        made[exercise] = "\n".join([source, *added])
    return made


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source[:MAX_SOURCE]).body
    except UNREADABLE:
        return []


def _defines(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [t.id for t in targets if isinstance(t, ast.Name)]


def _used(statements: Iterable[ast.stmt]) -> set[str]:
    return {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def tokens(lines: Iterable[str]) -> list[str]:
    """The tokens of normalised code."""
    text = "\n".join(lines)
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.string.strip():
                found.append(token.string)
    except (tokenize.TokenError, IndentationError, SyntaxError):
        found = re.findall(r"\w+|[^\w\s]", text)
    return found[:MAX_TOKENS]


def suspiciously_alike(code: Mapping[str, Mapping[str, str]], released: Mapping[str, str]) -> list[Alike]:
    """The pairs of submissions that are far more alike than those of this class as a rule, most alike first.

    Parameters
    ----------
    code : mapping
        By student and exercise the source of the exercise's cell.
    released : mapping
        By exercise the cell as it was handed out.
    """
    students = sorted(code)
    count = len(students)
    excess, weight, copied = (np.zeros((count, count)) for _ in range(3))
    similar: dict[str, np.ndarray] = {}
    for exercise, skeleton in released.items():
        lines = [normalised(code[s].get(exercise, ""), skeleton) for s in students]
        own = [tokens(of_one) for of_one in lines]
        long_enough = np.array([len(t) >= ENOUGH_TOKENS for t in own])
        if long_enough.sum() < 2:
            continue
        texts = _as_text(own)
        similarity = np.asarray(cdist(texts, texts, scorer=Indel.normalized_similarity, dtype=np.float32), dtype=float)
        similarity = np.maximum(similarity, _in_any_order(lines))
        both = np.outer(long_enough, long_enough)
        rule = float(np.median(similarity[np.triu(both, 1)]))
        if rule >= SAME_IN_CLASS:
            continue
        lengths = np.array([len(t) for t in own], dtype=float)
        shared = np.where(both, np.minimum.outer(lengths, lengths), 0.0)
        excess += shared * np.clip((similarity - rule) / (1 - rule), 0, None)
        weight += shared
        similar[exercise] = np.where(both, similarity, np.nan)
        same = both & (similarity >= SAME)
        if same[np.triu(both, 1)].mean() <= RARE:
            copied += same
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.where(weight >= ENOUGH_IN_ALL, excess / weight, 0.0)
    compared = score[np.triu(weight >= ENOUGH_IN_ALL, 1)]
    if not len(compared):
        return []
    lower, upper = np.percentile(compared, (25, 75))
    limit = min(max(SUSPICIOUS, upper + OUTLYING * (upper - lower)), 1 - CLOSE)
    listed = (score >= limit) | (copied >= SAME_EXERCISES)
    pairs = [(i, j) for i, j in zip(*np.nonzero(np.triu(listed, 1)), strict=True)]
    pairs.sort(key=lambda pair: (-score[pair], pair))
    return [
        _pair(
            code,
            released,
            (students[i], students[j]),
            float(score[i, j]),
            {e: float(s[i, j]) for e, s in similar.items() if not np.isnan(s[i, j])},
        )
        for i, j in pairs[:MAX_PAIRS]
    ]


def _pair(
    code: Mapping[str, Mapping[str, str]],
    released: Mapping[str, str],
    pair: tuple[str, str],
    score: float,
    similarity: dict[str, float],
) -> Alike:
    def text(student: str) -> str:
        found = []
        for exercise in similarity:
            given = {line.strip() for line in released[exercise].splitlines()}
            lines = code[student].get(exercise, "")[:MAX_SOURCE].splitlines()
            found += [line for line in lines if line.strip() not in given]
        return "\n".join(found)

    ordered = dict(sorted(similarity.items(), key=lambda item: -item[1]))
    return Alike(pair, score, ordered, fuzz.ratio(*map(text, pair)) / 100)


def _in_any_order(lines: list[list[str]]) -> np.ndarray:
    """For each pair the share of their lines, weighted by their length in tokens, that both have; (n, n)."""
    counts = [Counter(of_one) for of_one in lines]
    holders: dict[str, list[int]] = {}
    for k, of_one in enumerate(counts):
        for line in of_one:
            holders.setdefault(line, []).append(k)
    weights = {line: min(len(re.findall(r"\w+|[^\w\s]", line)), MAX_WEIGHT) for line in holders}
    totals = np.array([float(sum(n * weights[line] for line, n in of_one.items())) for of_one in counts])
    common = np.zeros((len(lines), len(lines)))
    for line, who in holders.items():
        if len(who) > 1:
            often = np.array([counts[k][line] for k in who])
            common[np.ix_(who, who)] += weights[line] * np.minimum.outer(often, often)
    return 2 * common / np.maximum(np.add.outer(totals, totals), 1.0)


def _as_text(sequences: list[list[str]]) -> list[str]:
    """Each token as one character, the same one everywhere."""
    symbols: dict[str, str] = {}
    made = []
    for sequence in sequences:
        made.append("".join(symbols.setdefault(t, chr(FIRST_SYMBOL + len(symbols))) for t in sequence))
    return made

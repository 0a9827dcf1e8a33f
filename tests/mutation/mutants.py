"""What a mutant is: source text replaced in one or more places, and the tests of which one must fail for it."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

Scoped = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Kind(StrEnum):
    """The promise that a mutant breaks."""

    EMISSION = "emission"
    FENCING = "fencing"
    DELIVERY = "delivery"
    GAP = "gap"
    IDEMPOTENCY = "idempotency"
    OWNERSHIP = "ownership"
    ORIGIN = "origin"
    TOKEN = "token"
    ENDING = "ending"
    HANDOVER = "handover"
    APPROVAL = "approval"


class StaleAnchorError(Exception):
    """What an edit replaces is not there exactly once: the code has moved on, and the table must follow."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces `old`, which occurs exactly once in `scope` of the file at `path`, by `new`.

    `scope` is the dotted name of a class, function or variable of the module; empty means the whole file.
    """

    path: str
    scope: str
    old: str
    new: str

    def applied(self, source: str) -> str:
        """Return the changed source. Raises `StaleAnchorError`."""
        where = f"{self.path}::{self.scope}"
        start, end = self._bounds(source, where)
        found = source[start:end].count(self.old)
        if found != 1:
            raise StaleAnchorError(f"{where}: found {found} times, not once: {self.old!r}")
        at = source.index(self.old, start, end)
        return source[:at] + self.new + source[at + len(self.old) :]

    def _bounds(self, source: str, where: str) -> tuple[int, int]:
        if not self.scope:
            return 0, len(source)
        found = [node for name, node in scopes(ast.parse(source)) if name == self.scope]
        if len(found) != 1:
            raise StaleAnchorError(f"{where}: there are {len(found)} of that name, not one")
        return bounds(source, found[0])


@dataclass(frozen=True, slots=True)
class Mutant:
    """`tests` are pytest's node ids; one that fails is enough, for they run in order up to the first failure."""

    name: str
    kind: Kind
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file that is changed (first)."""
        return self.edits[0].path

    def sources(self) -> Mapping[str, str]:
        """Return the changed source of each file. Raises `StaleAnchorError`, also for what is no Python any more."""
        return changed(self.edits)


def mutant(kind: Kind, name: str, test: str, *edits: Edit) -> Mutant:
    """Return a mutant that one test notices, as the tables write it."""
    return Mutant(name, kind, edits, (test,))


def changed(edits: Sequence[Edit]) -> Mapping[str, str]:
    """Return path → source with these edits made, one after the other. Raises `StaleAnchorError`."""
    sources: dict[str, str] = {}
    for edit in edits:
        sources[edit.path] = edit.applied(sources[edit.path] if edit.path in sources else read(edit.path))
    for path, source in sources.items():
        if path.endswith(".py"):
            try:
                compile(source, path, "exec")
            except SyntaxError as error:
                raise StaleAnchorError(f"{path}: the mutant is no Python: {error}") from error
    return sources


def read(path: str) -> str:
    """Return a file of the project. Raises `StaleAnchorError` where there is none."""
    try:
        return (ROOT / path).read_text("utf-8")
    except FileNotFoundError:
        raise StaleAnchorError(f"{path}: there is no such file") from None


def scopes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Scoped]]:
    """Yield what can be a scope, with its dotted name, outer ones first."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield prefix + node.name, node
                yield from scopes(node, f"{prefix}{node.name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if not prefix:
                    yield name, node
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                yield from scopes(node, prefix)
            case _:
                pass  # no expression holds a definition


def bounds(source: str, node: ast.stmt | ast.expr) -> tuple[int, int]:
    """Return where a node's text begins and ends in the source, in characters."""
    lines = source.splitlines(keepends=True)

    def offset(line: int, column: int | None) -> int:
        return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())

    return offset(node.lineno, node.col_offset), offset(node.end_lineno or node.lineno, node.end_col_offset)


def text_of(source: str, node: ast.stmt | ast.expr) -> str:
    """Return a node's text."""
    start, end = bounds(source, node)
    return source[start:end]

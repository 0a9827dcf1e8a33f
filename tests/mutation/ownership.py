"""Finds every condition of the service that compares a `user_id`, in expressions and in SQL text, and how to lift it.

What is found and is no filter that a user could ever notice stands in the table with the reason. A look-up that never
had a filter is not found here: `tests/storage/test_ownership.py` asks every method for somebody else's records.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.mutation.emissions import Site, scope_of
from tests.mutation.mutants import ROOT, Edit, bounds, read

FOLDERS: Final = ("agent_service/api", "agent_service/engine", "storage")

SQL_FILTER: Final = re.compile(r"(?:(?:\w+|\{\w+\})\.)?user_id = [$:?\w.()\[\]]+")
"""A condition within SQL that is written out."""


def ownership_sites() -> Iterator[Site]:
    """Yield every comparison, file by file; lifted, it always holds. The second of a name is `… #2`."""
    seen: Counter[str] = Counter()
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for site in conditions_in(name, read(name)):
            seen[site.name] += 1
            yield site if seen[site.name] == 1 else replace(site, name=f"{site.name} #{seen[site.name]}")


def conditions_in(path: str, source: str) -> Iterator[Site]:
    """Yield the comparisons of one file."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for start, end, node in sorted(_conditions(source, tree, parents), key=lambda found: found[:2]):
        condition = source[start:end]
        always = _lifted(node, condition) if isinstance(node, ast.Compare) else f"({condition} OR TRUE)"
        statement = _statement(node, parents)
        first, last = bounds(source, statement)
        scope = scope_of(node, parents) or _variable_of(statement)
        edit = Edit(path, scope, source[first:last], source[first:start] + always + source[end:last])
        yield Site(f"{path}::{scope}{_attribute_of(statement)} {' '.join(condition.split())}", edit)


def _conditions(
    source: str, tree: ast.AST, parents: dict[ast.AST, ast.AST]
) -> set[tuple[int, int, ast.Compare | ast.Constant]]:
    """Return where each condition begins and ends, and what it stands in."""
    found: dict[tuple[int, int], ast.Compare | ast.Constant] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(_is_user_id, (node.left, *node.comparators))):
            found[bounds(source, node)] = node
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not _is_docstring(node, parents):
            start, end = bounds(source, node)
            for match in SQL_FILTER.finditer(source[start:end]):
                # By place: the parts of an f-string all say that they are the whole of it.
                found[start + match.start(), start + match.end()] = node
    return {(start, end, node) for (start, end), node in found.items()}


def _is_user_id(node: ast.expr) -> bool:
    """Tell whether an operand is a user id, or a tuple with one."""
    match node:
        case ast.Tuple(elts=parts):
            return any(map(_is_user_id, parts))
        case ast.Attribute(attr="user_id") | ast.Name(id="user_id"):
            return True
        case _:
            return False


def _lifted(node: ast.Compare, text: str) -> str:
    """Return the comparison letting everybody through; in a query it must be SQL."""
    if ".c." in ast.unparse(node.left):
        return f"(({text}) | __import__('sqlalchemy').literal_column('1 = 1'))"
    return f"(({text}) {'and False' if isinstance(node.ops[0], ast.NotEq) else 'or True'})"


def _statement(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.stmt:
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node


def _is_docstring(node: ast.Constant, parents: dict[ast.AST, ast.AST]) -> bool:
    return isinstance(parents.get(node), ast.Expr)


def _variable_of(statement: ast.stmt) -> str:
    """Return the name that a statement of the module gives, or an empty text."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


def _attribute_of(statement: ast.stmt) -> str:
    """Return the attribute that a statement sets, with a point: statements are prepared side by side."""
    match statement:
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)]):
            return f".{name}"
        case _:
            return ""

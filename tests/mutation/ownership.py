"""Finds every condition of storage that compares a `user_id`, in expressions and in SQL text, and how to lift it.

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

SQL_FILTER: Final = re.compile(r"(?:\w+\.)?user_id = [$:?\w.()\[\]]+")
"""A condition within SQL that is written out."""


def ownership_sites() -> Iterator[Site]:
    """Yield every comparison, file by file; lifted, it always holds. The second of a name in a function is `… #2`."""
    seen: Counter[str] = Counter()
    for path in sorted((ROOT / "storage").glob("*.py")):
        for site in _sites_of(path.relative_to(ROOT).as_posix()):
            seen[site.name] += 1
            yield site if seen[site.name] == 1 else replace(site, name=f"{site.name} #{seen[site.name]}")


def _sites_of(path: str) -> Iterator[Site]:
    source = read(path)
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(_is_user_id, (node.left, *node.comparators))):
            scope = scope_of(node, parents)
            edit = Edit(path, scope, *_lifted(source, node, parents))
            yield Site(f"{path}::{scope} {ast.unparse(node)}", edit)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not _is_docstring(node, parents):
            scope = scope_of(node, parents) or _variable_of(node, parents)
            for condition in dict.fromkeys(SQL_FILTER.findall(node.value)):
                yield Site(f"{path}::{scope} {condition}", Edit(path, scope, condition, f"({condition} OR TRUE)"))


def _is_user_id(node: ast.expr) -> bool:
    """Tell whether an operand is a user id, or a tuple with one."""
    match node:
        case ast.Tuple(elts=parts):
            return any(map(_is_user_id, parts))
        case ast.Attribute(attr="user_id") | ast.Name(id="user_id"):
            return True
        case _:
            return False


def _lifted(source: str, node: ast.Compare, parents: dict[ast.AST, ast.AST]) -> tuple[str, str]:
    """Return the statement around a comparison, and the same letting everybody through; in a query it must be SQL."""
    statement = parents[node]
    while not isinstance(statement, ast.stmt):
        statement = parents[statement]
    first, end = bounds(source, statement)
    start, stop = bounds(source, node)
    if ".c." in ast.unparse(node.left):
        always = f"(({source[start:stop]}) | __import__('sqlalchemy').true())"
    else:
        always = f"(({source[start:stop]}) {'and False' if isinstance(node.ops[0], ast.NotEq) else 'or True'})"
    return source[first:end], source[first:start] + always + source[stop:end]


def _is_docstring(node: ast.Constant, parents: dict[ast.AST, ast.AST]) -> bool:
    return isinstance(parents.get(node), ast.Expr)


def _variable_of(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            return node.targets[0].id
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            return node.target.id
    return ""

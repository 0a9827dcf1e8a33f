"""Finds every place of the product where an event is made, queued or delivered, and how to take it out.

A new place is found too: it has no test in the table then, and a test says so.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.mutation.mutants import ROOT, Edit, Scoped, read, text_of

FOLDERS: Final = (*(f"agent_service/{name}" for name in ("agents", "api", "engine", "llm", "tools")), "storage")

STATE_MACHINE: Final = "agent_service/engine/run.py"
CLOSERS: Final = frozenset({"_close_tools", "_close_approvals", "_close_all"})
"""Methods of the state machine that return the events of what they close."""

ENDS: Final = frozenset({"resume", "complete", "cancel", "fail"})
"""Methods of an emitter that say more than one event."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place. `name` holds as long as the function and what it says keep their names.

    `edit` takes it out; None where an event gets a name first: then only a person knows what goes with it.
    """

    name: str
    edit: Edit | None


def emission_sites() -> Iterator[Site]:
    """Yield every place, in the order of files and lines. Raises `NotImplementedError` for one of a new form."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            yield from emissions_in(name, read(name))


def emissions_in(path: str, source: str) -> Iterator[Site]:
    """Yield the places of one file."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if _emits(path, call):
            scope = scope_of(call, parents)
            found = _deletion(source, call, parents)
            yield Site(f"{path}::{scope} {_label(call)}", None if found is None else Edit(path, scope, *found))


def _emits(path: str, call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        # The events of acceptance.
        return path == "storage/acceptance.py" and call.func.id == "StoredEvent"
    if not isinstance(call.func, ast.Attribute):
        return False
    method, receiver = call.func.attr, ast.unparse(call.func.value)
    if path == STATE_MACHINE:
        return receiver == "self" and method in {"next", *CLOSERS}
    of_emitter = receiver.endswith("emitter") or (path.endswith("/emitter.py") and receiver == "self")
    return (
        (of_emitter and method in {"emit", "commit"})
        or (receiver.endswith("emitter") and method in ENDS)
        or (receiver.endswith("_writer") and method == "append")
        or (receiver == "self" and method in {"_say", "_deliver"})
        or (receiver.endswith("broadcast") and method in {"begin", "publish", "thread_changed"})
        or (receiver.endswith("_sink") and method in {"thought", "text", "discard_text"})
        or (receiver == "context" and method == "progress")
    )


def _deletion(source: str, call: ast.Call, parents: dict[ast.AST, ast.AST]) -> tuple[str, str] | None:
    """Return the text to replace and its replacement, None where the event gets a name first."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in CLOSERS:
        return text_of(source, call), "[]"
    node: ast.AST = call
    while True:
        inner, node = node, parents[node]
        match node:
            case ast.Await():
                continue
            case ast.Call(func=ast.Attribute(attr="append")):  # events.append(self.next(…))
                continue
            case ast.Expr():
                return text_of(source, node), "pass"
            case ast.List() | ast.Tuple() if isinstance(inner, ast.expr):
                return text_of(source, inner), "*()"
            case ast.ListComp():
                return text_of(source, node), "[]"
            case ast.Assign():
                return None
            case _:
                text = f"line {call.lineno}: say how an emission of this form is deleted: {ast.unparse(node)}"
                raise NotImplementedError(text)


def scope_of(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    """Return the dotted name of the functions and classes around a node."""
    names: list[str] = []
    while node in parents:
        node = parents[node]
        if isinstance(node, Scoped) and not isinstance(node, (ast.Assign, ast.AnnAssign)):
            names.append(node.name)
    return ".".join(reversed(names))


def _label(call: ast.Call) -> str:
    """Return what is said: the kind of event where it is made in place, else the name that it has there."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "progress":
        return ast.unparse(call.args[0])
    if isinstance(call.func, ast.Attribute) and call.func.attr in ENDS | CLOSERS:
        return f"{call.func.attr}({', '.join(map(ast.unparse, call.args[-1:]))})"
    if isinstance(call.func, ast.Name):
        return f"{call.func.id} {ast.unparse(call.args[1])}"
    said = call.args[-1] if call.args else call.func
    if isinstance(said, ast.Call) and isinstance(said.func, ast.Name):
        match said.args:
            case [ast.Attribute(attr=which), *_] if which.isupper():  # a stage of progress, a kind of change
                return f"{said.func.id} {which}"
            case _:
                return said.func.id
    return ast.unparse(said)

"""What a user's statement may contain: exactly what reads the table `data`, and functions that only compute."""

from collections.abc import Iterator
from typing import Final

from agent_service.tools.sandbox_child.frames import Json
from agent_service.tools.sandbox_child.refusal import Refusal

TABLE_FUNCTIONS: Final = frozenset({"range", "generate_series", "unnest"})
"""Those that make rows of their arguments alone."""

DENIED_FUNCTIONS: Final = frozenset(
    {"current_setting", "getenv", "getvariable", "nextval", "currval", "query", "query_table", "write_log"}
)
DENIED_PREFIXES: Final = (
    *("duckdb_", "pg_", "pragma_", "read_", "parse_duckdb", "json_execute", "json_serialize", "which_"),
)


def check_tree(tree: Json) -> None:
    """Refuse whatever reads anything but `data`. The database's own lock is the wall; this gives the clear message."""
    nodes = list(walk(tree))
    tables = {"data"}
    for node in nodes:
        ctes = node.get("cte_map")
        entries = ctes.get("map") if isinstance(ctes, dict) else None
        if isinstance(entries, list):
            tables |= {str(entry["key"]).casefold() for entry in entries if isinstance(entry, dict)}
    for node in nodes:
        check_node(node, tables)


def walk(tree: Json) -> Iterator[dict[str, Json]]:
    """Yield every object of the tree, without recursion."""
    stack: list[Json] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def check_node(node: dict[str, Json], tables: set[str]) -> None:
    """Refuse this node if it reaches out."""
    kind = node.get("type")
    if node.get("error") is True:
        raise Refusal("sql", f"The statement cannot be read: {node.get('error_message')}")
    if kind == "BASE_TABLE":
        table = str(node.get("table_name"))
        if table.casefold() not in tables or node.get("schema_name") or node.get("catalog_name"):
            raise Refusal("refused", f"Only the table data can be read, not {table!r}: write FROM data.")
    elif kind == "TABLE_FUNCTION":
        function = node.get("function")
        name = str(function.get("function_name")) if isinstance(function, dict) else "?"
        if name.casefold() not in TABLE_FUNCTIONS:
            raise Refusal("refused", f"Only the table data can be read: the function {name!r} is not allowed here.")
    elif kind == "SHOW_REF":
        raise Refusal("refused", "Only SELECT is allowed. To see the columns, write SELECT * FROM data LIMIT 1.")
    elif kind == "VALUE_PARAMETER":
        raise Refusal("refused", "The statement has a parameter; write its value instead.")
    elif node.get("class") in {"FUNCTION", "WINDOW"}:
        name = str(node.get("function_name")).casefold()
        if name in DENIED_FUNCTIONS or (name.startswith(DENIED_PREFIXES) and name != "pg_typeof"):
            raise Refusal("refused", f"The function {name!r} is not allowed here.")

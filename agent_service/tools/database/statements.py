"""Texts of SQL statements: without their literals, and which columns they look rows up by."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlglot import exp

MAX_SHOWN_CHARACTERS: Final = 300
"""Of a statement in a result."""

MAX_READ_CHARACTERS: Final = 10_000
"""Longer statements are not looked into."""

_PIECES: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<dollar> \$(?P<tag>[A-Za-z_]*)\$ .*? (?:\$(?P=tag)\$|\Z) )
    | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) )
    | (?P<text> (?:\b[bBxXnN]|\b[uU]&)?'(?:[^']|'')*(?:'|\Z) )
    | (?P<name> "(?:[^"]|"")*(?:"|\Z) )
    | (?P<parameter> \$\d+ )
    | (?P<number> (?<![\w.$]) (?: 0[xX][0-9a-fA-F]+ | (?:\d[\d_]*)?\.?\d[\d_]*\.? (?:[eE][+-]?\d+)? ) (?!\w) )
    """,
    re.VERBOSE | re.DOTALL,
)

_LOOKS_UP: Final = re.compile(r"\s*(?:select|with|update|delete)\b", re.IGNORECASE)
"""How statements begin that look rows up. Of others the parser would write the text, secrets and all, to the log."""


def without_literals(sql: str) -> str:
    """Return the statement with every literal as `?`, without comments, on one line, clipped.

    A literal that the server has cut off is one up to the end: what may be a secret is never shown.
    """
    clean = " ".join(_PIECES.sub(_piece, sql).split())
    return clean if len(clean) <= MAX_SHOWN_CHARACTERS else clean[: MAX_SHOWN_CHARACTERS - 1] + "…"


def _piece(match: re.Match[str]) -> str:
    if match["comment"] is not None:
        return " "
    return match[0] if match["name"] is not None or match["parameter"] is not None else "?"


def looked_up(sql: str, dialect: str) -> list[tuple[str, str]]:
    """Return table and column, in lower case, of each comparison in WHERE and ON; nothing for what cannot be read.

    `dialect` is one of sqlglot's. A column without a table belongs to the only table of its SELECT, or to none.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if len(sql) > MAX_READ_CHARACTERS or not _LOOKS_UP.match(sql):
        return []
    try:
        tree = sqlglot.parse_one(sql, read=dialect)
    except (SqlglotError, RecursionError):
        return []
    parts = tree.find_all(exp.Select, exp.Update, exp.Delete)
    return list(dict.fromkeys(pair for part in parts for pair in _of_one(part)))


def _of_one(select: "exp.Expression") -> Iterator[tuple[str, str]]:
    from sqlglot import exp

    scope = (exp.Select, exp.Update, exp.Delete)
    tables = [table for table in select.find_all(exp.Table) if table.find_ancestor(*scope) is select and table.name]
    names = {table.alias_or_name.lower(): table.name.lower() for table in tables}
    only = next(iter(names.values())) if len(names) == 1 else ""
    comparisons = (exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between)
    for column in select.find_all(exp.Column):
        place = column.parent
        inside = column.find_ancestor(exp.Where, exp.Join)
        if not isinstance(place, comparisons) or inside is None or column.find_ancestor(*scope) is not select:
            continue
        table = names.get(column.table.lower(), "") if column.table else only
        if table:
            yield table, column.name.lower()

"""One file beside one locked in-memory database: our own statements over it, and a user's."""

import json
from pathlib import Path
from typing import Final

import duckdb

from agent_service.tools.sandbox_child.frames import Json, Message
from agent_service.tools.sandbox_child.refusal import Refusal
from agent_service.tools.sandbox_child.source import Source
from agent_service.tools.sandbox_child.sql import sql_text
from agent_service.tools.sandbox_child.statements import check_tree
from agent_service.tools.sandbox_child.values import plain

MAX_CELL_CHARACTERS: Final = 2_000
"""Of a text in a user's result; the rest is cut."""

BATCH_ROWS: Final = 256
"""Rows that are taken from a result at once."""


class Database:
    """Opened for one request. It can touch that one file and nothing else, and its configuration is locked.

    `open` reads the file; `scratch` begins without one, and our own statements may write it.
    """

    def __init__(self, request: Message) -> None:
        self.path = Path(str(request["path"]))
        self.name = str(request["name"])
        self.connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{request['memory_mib']}MiB",
                "threads": str(request["threads"]),
                # A temporary directory would always be readable, and its spilled rows with it.
                "temp_directory": "",
                "python_enable_replacements": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
            },
        )
        self.source = Source(self.connection, self.path, exact_types=bool(request["exact_types"]))
        run = self.connection.execute
        run("SET TimeZone='UTC'")
        run(f"SET allowed_paths=[{sql_text(str(self.path))}]")
        run("SET enable_external_access=false")
        run("SET lock_configuration=true")

    def close(self) -> None:
        """Forget the file."""
        self.connection.close()

    def run(self, request: Message) -> Message:
        """Execute our own statement."""
        self.connection.execute(str(request["sql"]))
        return self._fetch(request, for_people=False)

    def select(self, request: Message) -> Message:
        """Execute a user's statement. Raises `Refusal` unless it is exactly one SELECT over `data`."""
        sql = str(request["sql"])
        statements = self.connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type.name != "SELECT":
            raise Refusal("refused", "Only exactly one SELECT statement is allowed here.")
        tree = self.connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0]
        check_tree(json.loads(tree))
        self.connection.execute(statements[0])
        for name, type_, *_ in self.connection.description or []:
            if "WITH TIME ZONE" in str(type_):  # Python would need a time zone library to hold it
                self.connection.abort()
                raise Refusal("sql", f"The column {name!r} is a time with a zone; write CAST(… AS TIMESTAMP) for UTC.")
        return self._fetch(request, for_people=True)

    def _fetch(self, request: Message, *, for_people: bool) -> Message:
        """Return rows up to the request's bounds; `more` says which of them ended it: rows, bytes, or none."""
        max_rows, max_bytes = int(str(request["max_rows"])), int(str(request["max_bytes"]))
        description = self.connection.description or []
        rows: list[Json] = []
        used, more, cut = 0, "", 0
        while not more and (batch := self.connection.fetchmany(min(max_rows + 1, BATCH_ROWS))):
            for values in batch:
                row: list[Json] = [plain(value, for_people=for_people) for value in values]
                if for_people:
                    shortened = [_shortened(value) for value in row]
                    cut += sum(short is not value for short, value in zip(shortened, row, strict=True))
                    row = shortened
                used += len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")) + 1
                more = "rows" if len(rows) >= max_rows else "bytes" if used > max_bytes else ""
                if more:
                    break
                rows.append(row)
        self.connection.abort()
        return {
            "columns": [name for name, *_ in description],
            "types": [str(type_) for _, type_, *_ in description],
            "rows": rows,
            "more": more,
            "cut_cells": cut,
        }


def _shortened(value: Json) -> Json:
    """Cut a text that is too long; return anything else as it is."""
    return f"{value[:MAX_CELL_CHARACTERS]}…" if isinstance(value, str) and len(value) > MAX_CELL_CHARACTERS else value

"""The child process that alone reads users' datasets: DuckDB behind length-prefixed JSON frames.

It is run as a script by `sandbox.py`, imports nothing of ours, and may be killed at any moment. A frame is four bytes
of length, big-endian, and as many bytes of UTF-8 JSON. One request is answered by one reply:
`open` reads a file into a fresh database, `run` executes our own SQL, `select` a user's, `close` forgets the file.
"""

import codecs
import gzip
import json
import math
import os
import queue
import re
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Request: TypeAlias = dict[str, Json]

HEAD_BYTES = 64 * 1024
MAX_CELL_CHARACTERS = 2_000
MAX_COLUMNS = 300
MAX_EXACT_DIGITS = 15
MAX_SEARCHED_BYTES = 32 * 1024**2
MAX_EXACT_INT = 2**53 - 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_MESSAGE_CHARACTERS = 400
ADDRESS_SPACE_HEADROOM_BYTES = 2 * 1024**3
LENGTH = struct.Struct(">I")

NULL_WORDS = ("", "NULL", "null", "None", "NaN", "nan", "N/A", "n/a", "NA")
FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"SQLite format 3": "an SQLite database",
}
WANTED = "Datasets are CSV, JSONL, JSON or Parquet, also gzipped; export or save it as one of these."
REPAIR = "Repair or remove it, and upload the file again."
SCALARS = frozenset(
    (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
        *("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
    )
)
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
DENIED_FUNCTIONS = frozenset(
    {"current_setting", "getenv", "getvariable", "nextval", "currval", "query", "query_table", "write_log"}
)
DENIED_PREFIXES = ("duckdb_", "pg_", "pragma_", "read_", "parse_duckdb", "json_execute", "json_serialize", "which_")


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """What a person is told. `kind` is one of: file, refused, sql, memory, timeout."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def unsupported(what: str) -> Refusal:
    """Say what the file is and what would be right."""
    return Refusal("file", f"{{name}} is {what}, not a dataset. {WANTED}")


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"


# --- What kind of file it is -----------------------------------------------------------------------------------------


def unzipped_head(path: str, max_bytes: int) -> bytes:
    """Check the whole gzip stream and return its beginning: a cut or damaged file must not pass as a shorter one."""
    head, total = b"", 0
    decoder = zlib.decompressobj(31)
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
        while data := file.read(1024 * 1024):
            while data:
                try:
                    piece = decoder.decompress(data, 4 * 1024 * 1024)
                except zlib.error as error:
                    raise Refusal(
                        "file", "{name} is not a readable gzip file: it is damaged. Upload it again."
                    ) from error
                total += len(piece)
                head += piece[: HEAD_BYTES - len(head)]
                if total > max_bytes:
                    text = f"{{name}} unpacks to more than {max_bytes // 1024**2} MiB. Upload a smaller part of it."
                    raise Refusal("file", text)
                data = decoder.unconsumed_tail
                if decoder.eof and (data := decoder.unused_data):
                    decoder = zlib.decompressobj(31)
    if not decoder.eof:
        raise Refusal("file", "{name} ends in the middle of its gzip data: it was cut off. Upload it again.")
    return head


def ends_with_list(path: str) -> bool:
    """Return whether the last bytes that are not space are the end of a JSON list."""
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
        file.seek(max(0, os.path.getsize(path) - HEAD_BYTES))  # noqa: PTH202
        return file.read().rstrip().endswith(b"]")


def detect(path: str, max_unpacked_bytes: int) -> tuple[str, str, str]:
    """Return kind (csv, json, jsonl, parquet), compression (none, gzip) and encoding, by content."""
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
        head = file.read(HEAD_BYTES)
    compression = "none"
    if head.startswith(b"\x1f\x8b"):
        compression, head = "gzip", unzipped_head(path, max_unpacked_bytes)
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise unsupported(what)
    if head.startswith(b"PAR1"):
        if compression == "gzip":
            raise unsupported("a gzipped Parquet file: upload the Parquet file itself, it is")
        return "parquet", "none", "utf-8"
    if b"\0" in head:
        raise unsupported("a binary file")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise Refusal("file", "{name} is empty: there is nothing to analyse.")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    kind = {b"[": "json", b"{": "jsonl"}.get(text[:1], "csv")
    if kind == "json" and compression == "none" and not ends_with_list(path):
        # The database reads such a list as a shorter one.
        raise Refusal("file", malformed_json(path))
    return kind, compression, encoding


def malformed_json(path: str) -> str:
    """Say where JSON breaks, within the first `MAX_SEARCHED_BYTES`: the database counts lines in its own way."""
    with open(path, "rb") as raw:  # noqa: PTH123 - pathlib costs start-up time
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else open(path, "rb") as file:  # noqa: PTH123
        data = file.read(MAX_SEARCHED_BYTES + 1)
    number = broken_line(data.decode("utf-8-sig", "replace"))
    lines = data.rstrip().count(b"\n") + 1
    if not number or (number >= lines and len(data) > MAX_SEARCHED_BYTES):
        return f"{{name}} is not valid JSON: one of its records cannot be read. {REPAIR}"
    if number >= lines:
        text = f"{{name}} is not valid JSON: its last line ({lines:,}) cannot be read; it may have been cut off."
        return f"{text} {REPAIR}"
    return f"{{name}} is not valid JSON: line {number:,} cannot be read. {REPAIR}"


def broken_line(text: str) -> int:
    """Return the number of the first line where the JSON breaks, 0 where none does: one record per line, or one text.

    A first line that is no record by itself, with a second one that is none either, is part of a longer text.
    """
    lines = text.split("\n")
    bad = (number for number, line in enumerate(lines, start=1) if line.strip() and not is_record(line))
    first = next(bad, 0)
    one_per_line = first > 1 or (len(lines) > 1 and is_record(lines[1]))
    if not first or (one_per_line and not text.lstrip().startswith("[")):
        return first
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except RecursionError:
        pass
    return 0


def is_record(line: str) -> bool:
    """Return whether the line is a whole JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (json.JSONDecodeError, RecursionError):
        return False


# --- The database ----------------------------------------------------------------------------------------------------


class Database:
    """One dataset in one locked in-memory database."""

    def __init__(self, request: Request) -> None:
        import duckdb

        self.path = str(request["path"])
        self.name = str(request["name"])
        self.kind = ""
        self.exact = bool(request["exact_types"])
        self.connection: duckdb.DuckDBPyConnection = duckdb.connect(
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
        run = self.connection.execute
        run("SET TimeZone='UTC'")
        run(f"SET allowed_paths=[{literal(self.path)}]")
        run("SET enable_external_access=false")
        run("SET lock_configuration=true")

    def close(self) -> None:
        self.connection.close()

    def read(self, max_unpacked_bytes: int) -> Request:
        """Make the view `raw` and return the file's format and columns."""
        kind, compression, encoding = detect(self.path, max_unpacked_bytes)
        self.kind = kind
        delimiter = ""
        header = True
        if kind == "csv":
            delimiter, header, source = self._csv(compression, encoding)
        elif kind == "parquet":
            source = f"read_parquet({literal(self.path)})"
        else:
            source = f"read_json({literal(self.path)}, compression={literal(compression)}, sample_size=-1)"
        columns = self._flatten(kind, source)
        return {
            "kind": kind,
            "compression": compression,
            "encoding": encoding,
            "delimiter": delimiter,
            "header": header,
            "columns": columns,
        }

    def _csv(self, compression: str, encoding: str) -> tuple[str, bool, str]:
        place = literal(self.path)
        nulls = "[" + ", ".join(map(literal, NULL_WORDS)) + "]"
        fixed = f"compression={literal(compression)}, encoding={literal(encoding)}, nullstr={nulls}"
        sample = -1 if self.exact else 20_480
        found = self.connection.execute(
            "SELECT Delimiter, SkipRows, HasHeader, Columns "
            f"FROM sniff_csv({place}, {fixed}, comment='', sample_size={sample})"
        ).fetchall()[0]
        delimiter, skipped, header, columns = found
        if skipped:
            text = f"The first {skipped} lines of {{name}} do not fit the rest of it. Remove or repair them."
            raise Refusal("file", text)
        if len(columns) == 1 and columns[0]["type"] == "VARCHAR":
            text = (
                "{name} has a single column of text. A dataset has a line of column names and one line per request, "
                "separated by commas, semicolons or tabs."
            )
            raise Refusal("file", text)
        # Text unless asked: a value deep in the file that does not fit a guessed type must be counted, not break it.
        types = ", ".join(
            f"{literal(column['name'])}: {literal(column['type'] if self.exact else 'VARCHAR')}" for column in columns
        )
        # Quotes may first appear after the sample.
        quotes = "quote='\"', escape='\"'"
        source = (
            f"read_csv({place}, auto_detect=false, delim={literal(delimiter)}, header={header}, {quotes}, "
            f"columns={{{types}}}, {fixed})"
        )
        return delimiter, header, source

    def _flatten(self, kind: str, source: str) -> list[Json]:
        self.connection.execute(f"CREATE VIEW source AS SELECT * FROM {source}")
        described = self.connection.execute("SELECT * FROM source LIMIT 0").description or []
        self.connection.abort()
        leaves = [leaf for name, kind_, *_ in described for leaf in leaves_of(name, f"source.{quoted(name)}", kind_)]
        if kind in {"json", "jsonl"} and len(described) == 1:
            only = str(described[0][1])
            if described[0][0] == "json" and not only.startswith("STRUCT"):
                raise Refusal("file", "{name} holds no JSON objects: each record must be one, with named fields.")
            if only.endswith("[]"):
                text = (
                    f"The records of {{name}} are inside its field {described[0][0]!r}. "
                    "Save the list itself, or one record per line."
                )
                raise Refusal("file", text)
        if len(leaves) > MAX_COLUMNS:
            text = f"{{name}} has {len(leaves)} columns; up to {MAX_COLUMNS} can be analysed. Keep those that matter."
            raise Refusal("file", text)
        taken: set[str] = set()
        chosen: list[tuple[str, str]] = []
        for name, expression in leaves:
            unique, number = name, 1
            while unique.casefold() in taken:
                number += 1
                unique = f"{name}_{number}"
            taken.add(unique.casefold())
            chosen.append((unique, expression))
        select = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in chosen)
        self.connection.execute(f"CREATE VIEW raw AS SELECT {select} FROM source")
        final = self.connection.execute("SELECT * FROM raw LIMIT 0").description or []
        self.connection.abort()
        return [{"name": name, "type": str(type_)} for name, type_, *_ in final]

    def run(self, request: Request) -> Request:
        """Execute our own statement."""
        self.connection.execute(str(request["sql"]), request.get("params") or None)
        return self._fetch(request, for_people=False)

    def select(self, request: Request) -> Request:
        """Execute a user's statement, if it is exactly one SELECT over `data`."""
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

    def _fetch(self, request: Request, *, for_people: bool) -> Request:
        max_rows, max_bytes = int(str(request["max_rows"])), int(str(request["max_bytes"]))
        description = self.connection.description or []
        rows: list[Json] = []
        used, more, cut = 0, "", 0
        while not more and (batch := self.connection.fetchmany(min(max_rows + 1, 256))):
            for values in batch:
                row: list[Json] = [plain(value, for_people=for_people) for value in values]
                if for_people:
                    cut += sum(isinstance(v, str) and len(v) > MAX_CELL_CHARACTERS for v in row)
                    row = [
                        v[:MAX_CELL_CHARACTERS] + "…" if isinstance(v, str) and len(v) > MAX_CELL_CHARACTERS else v
                        for v in row
                    ]
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


def leaves_of(name: str, expression: str, type_: "DuckDBPyType", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield name and expression of a column, or of each field of a struct: `usage.prompt_tokens`."""
    text = str(type_)
    if text.startswith("STRUCT") and not text.endswith("]") and depth < 4:  # noqa: PLR2004 - deeper is text
        fields = [(field, inner) for field, inner in type_.children if not isinstance(inner, (int, list))]
        for field, inner in fields:
            yield from leaves_of(f"{name}.{field}", f"struct_extract({expression}, {literal(field)})", inner, depth + 1)
    elif text == "JSON":
        yield name, f"{expression} ->> '$'"
    elif text == "TIMESTAMP WITH TIME ZONE":
        yield name, f"{expression} AT TIME ZONE 'UTC'"
    elif text.split("(", maxsplit=1)[0] in SCALARS and not text.endswith("]"):
        yield name, expression
    else:
        yield name, f"CAST({expression} AS VARCHAR)"


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


def plain(value: object, *, for_people: bool) -> Json:  # noqa: PLR0911 - one line per kind of value
    """Return the value as JSON. For people, numbers stay numbers where JSON carries them exactly."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if not for_people or abs(value) <= MAX_EXACT_INT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return float(value) if for_people and len(value.as_tuple().digits) <= MAX_EXACT_DIGITS else str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [plain(item, for_people=for_people) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, for_people=for_people) for key, item in value.items()}
    return str(value)


# --- Requests and replies --------------------------------------------------------------------------------------------


class Server:
    """Answers one request after another. A thread reads, so that the end of the input ends the process at once."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._database: Database | None = None

    def serve(self) -> None:
        """Work until the input ends."""
        threading.Thread(target=self._read, daemon=True).start()
        import duckdb  # noqa: F401 - a warm child has it loaded before the first request

        while True:
            reply = json.dumps(self._answer(self._requests.get()), ensure_ascii=False).encode("utf-8", "replace")
            if len(reply) > MAX_FRAME_BYTES:
                reply = b'{"error":"sql","message":"The result is too large; ask for less."}'
            self._sink.write(LENGTH.pack(len(reply)) + reply)
            self._sink.flush()

    def _read(self) -> None:
        while len(head := self._source.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            self._requests.put(json.loads(self._source.read(size)))
        os._exit(0)

    def _answer(self, request: Request) -> Request:
        import duckdb

        expired = threading.Event()
        timer = threading.Timer(int(str(request["timeout_ms"])) / 1000, self._interrupt, [expired])
        timer.start()
        try:
            return self._handle(request)
        except Refusal as refusal:
            return {"error": refusal.kind, "message": self._clean(str(refusal))}
        except (duckdb.OutOfMemoryException, MemoryError):
            return {"error": "memory", "message": ""}
        except duckdb.Error as error:
            if expired.is_set():
                return {"error": "timeout", "message": ""}
            kind = "sql" if request["op"] == "select" else "file"
            said = str(error) if kind == "sql" else self._unreadable(str(error))
            return {"error": kind, "message": self._clean(said)}
        except (RecursionError, ValueError, OSError) as error:
            return {"error": "file", "message": self._clean(str(error))}
        finally:
            timer.cancel()

    def _interrupt(self, expired: threading.Event) -> None:
        expired.set()
        if self._database is not None:
            self._database.connection.interrupt()

    def _handle(self, request: Request) -> Request:
        match request["op"]:
            case "open":
                self._forget()
                self._database = Database(request)
                return self._database.read(int(str(request["max_unpacked_bytes"])))
            case "run" if self._database is not None:
                return self._database.run(request)
            case "select" if self._database is not None:
                return self._database.select(request)
            case _:
                self._forget()
                return {}

    def _unreadable(self, said: str) -> str:
        """Return what a person can do about a file that the database cannot read, in place of its own words."""
        database = self._database
        if database is not None and "Malformed JSON" in said:
            return malformed_json(database.path)
        if line := re.search(r"CSV Error on Line: (\d+)", said):
            what = f"Line {int(line[1]):,} of {{name}} does not fit the others"
            return f"{what}: it has another number of columns, or a quote that does not end. {REPAIR}"
        if "parquet" in said.lower() or (database is not None and database.kind == "parquet"):
            return "{name} is not a readable Parquet file: it is damaged or was cut off. Upload it again."
        return f"{{name}} cannot be read: {said.partition('Error: ')[2] or said}"

    def _forget(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _clean(self, message: str) -> str:
        """Return the first part of the message, with the file's name in place of where it lies."""
        name = self._database.name if self._database else "the file"
        path = self._database.path if self._database else ""
        text = message.replace("{name}", name)
        if path:
            text = text.replace(path, name)
        text = text.split("Possible ")[0].split("\n\n")[0].split("  file = ")[0]
        return " ".join(text.split())[:MAX_MESSAGE_CHARACTERS]


def limit_resources(memory_mib: int) -> None:
    """Let the system refuse what the database's own limits let through: no written bytes, no core, bounded memory."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    wanted = memory_mib * 1024**2 + ADDRESS_SPACE_HEADROOM_BYTES
    for what, limit in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, wanted)):
        hard = resource.getrlimit(what)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (value, value))


def main() -> None:
    """Serve on standard input and output."""
    limit_resources(int(sys.argv[1]))
    Server(sys.stdin.buffer, sys.stdout.buffer).serve()


if __name__ == "__main__":
    main()

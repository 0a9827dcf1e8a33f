"""A file as the view `raw`: one row per record, one column per plain value, names unique."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent_service.tools.sandbox_child.formats import Format, detect
from agent_service.tools.sandbox_child.frames import Json, Message
from agent_service.tools.sandbox_child.refusal import Refusal
from agent_service.tools.sandbox_child.sql import identifier, sql_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from duckdb.sqltypes import DuckDBPyType

MAX_COLUMNS: Final = 300
"""Of the view, the fields of structs counted one by one."""

MAX_STRUCT_DEPTH: Final = 4
"""Structs are taken apart so deep; what is deeper is one text."""

SNIFFED_ROWS: Final = 20_480
"""Of a CSV, to find out how it is written; all of them where its types must fit every row."""

NULL_WORDS: Final = ("", "NULL", "null", "None", "NaN", "nan", "N/A", "n/a", "NA")
"""What stands for nothing in a CSV."""

SCALARS: Final = frozenset(
    (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
        *("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
    )
)
"""Types that a column of the view may have; others become text."""


class Source:
    """Reads one file. `kind` is what it turned out to be, empty until then."""

    def __init__(self, connection: "DuckDBPyConnection", path: Path, *, exact_types: bool) -> None:
        self._connection = connection
        self._path = path
        self._exact_types = exact_types
        self.kind = ""

    def read(self, max_unpacked_bytes: int) -> Message:
        """Make the view `raw` and return the file's format and columns. Raises `Refusal`."""
        form = detect(self._path, max_unpacked_bytes)
        self.kind = form.kind
        delimiter, header = "", True
        place = sql_text(str(self._path))
        if form.kind == "csv":
            delimiter, header, source = self._csv(form)
        elif form.kind == "parquet":
            source = f"read_parquet({place})"
        else:
            source = f"read_json({place}, compression={sql_text(form.compression)}, sample_size=-1)"
        self._connection.execute(f"CREATE VIEW source AS SELECT * FROM {source}")
        return {**form._asdict(), "delimiter": delimiter, "header": header, "columns": self._flatten()}

    def _csv(self, form: Format) -> tuple[str, bool, str]:
        """Return delimiter, whether there is a line of names, and the SQL that reads the file."""
        place = sql_text(str(self._path))
        nulls = "[" + ", ".join(map(sql_text, NULL_WORDS)) + "]"
        fixed = f"compression={sql_text(form.compression)}, encoding={sql_text(form.encoding)}, nullstr={nulls}"
        found = self._connection.execute(
            "SELECT Delimiter, SkipRows, HasHeader, Columns "
            f"FROM sniff_csv({place}, {fixed}, comment='', sample_size={-1 if self._exact_types else SNIFFED_ROWS})"
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
            f"{sql_text(column['name'])}: {sql_text(column['type'] if self._exact_types else 'VARCHAR')}"
            for column in columns
        )
        # Quotes may first appear after the sample.
        quotes = "quote='\"', escape='\"'"
        source = (
            f"read_csv({place}, auto_detect=false, delim={sql_text(delimiter)}, header={header}, {quotes}, "
            f"columns={{{types}}}, {fixed})"
        )
        return delimiter, header, source

    def _flatten(self) -> list[Json]:
        """Make `raw` of the view `source` and return its columns."""
        columns = self._columns_of("source")
        if self.kind in {"json", "jsonl"} and len(columns) == 1:
            _check_only_field(*columns[0])
        leaves = [leaf for name, type_ in columns for leaf in leaves_of(name, f"source.{identifier(name)}", type_)]
        if len(leaves) > MAX_COLUMNS:
            text = f"{{name}} has {len(leaves)} columns; up to {MAX_COLUMNS} can be analysed. Keep those that matter."
            raise Refusal("file", text)
        select = ", ".join(f"{expression} AS {identifier(name)}" for name, expression in _unique(leaves))
        self._connection.execute(f"CREATE VIEW raw AS SELECT {select} FROM source")
        return [{"name": name, "type": str(type_)} for name, type_ in self._columns_of("raw")]

    def _columns_of(self, view: str) -> list[tuple[str, "DuckDBPyType"]]:
        described = self._connection.execute(f"SELECT * FROM {view} LIMIT 0").description or []
        self._connection.abort()
        return [(name, type_) for name, type_, *_ in described]


def _check_only_field(name: str, type_: "DuckDBPyType") -> None:
    """Refuse JSON whose only field is not the records themselves. Raises `Refusal`."""
    kind = str(type_)
    if name == "json" and not kind.startswith("STRUCT"):
        raise Refusal("file", "{name} holds no JSON objects: each record must be one, with named fields.")
    if kind.endswith("[]"):
        text = f"The records of {{name}} are inside its field {name!r}. Save the list itself, or one record per line."
        raise Refusal("file", text)


def leaves_of(name: str, expression: str, type_: "DuckDBPyType", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield name and expression of a column, or of each field of a struct: `usage.prompt_tokens`."""
    text = str(type_)
    if text.startswith("STRUCT") and not text.endswith("]") and depth < MAX_STRUCT_DEPTH:
        fields = [(field, inner) for field, inner in type_.children if not isinstance(inner, (int, list))]
        for field, inner in fields:
            whole = f"struct_extract({expression}, {sql_text(field)})"
            yield from leaves_of(f"{name}.{field}", whole, inner, depth + 1)
    elif text == "JSON":
        yield name, f"{expression} ->> '$'"
    elif text == "TIMESTAMP WITH TIME ZONE":
        yield name, f"{expression} AT TIME ZONE 'UTC'"
    elif text.split("(", maxsplit=1)[0] in SCALARS and not text.endswith("]"):
        yield name, expression
    else:
        yield name, f"CAST({expression} AS VARCHAR)"


def _unique(leaves: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the leaves with names that differ in more than case: a second `id` is called `id_2`."""
    taken: set[str] = set()
    for name, expression in leaves:
        unique, number = name, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        yield unique, expression

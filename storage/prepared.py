"""Statements of SQLAlchemy Core that are compiled once, for the transactions that every run passes through.

Compiling, or even finding what was compiled before, costs SQLAlchemy more than a database takes for such a statement.
"""

from collections import namedtuple
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import Dialect, Select
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from storage.rows import AnyRow

T = TypeVar("T")

Statement: TypeAlias = Select[Any] | UpdateBase
Convert: TypeAlias = Callable[[Any], Any]  # SQLAlchemy's own type for its processors
MakeRow: TypeAlias = Callable[[Sequence[object]], AnyRow]

_NAMED: Callable[..., Any] = namedtuple  # noqa: PYI024 - the names are known at run time only


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as a driver takes it. `make_row` turns what the driver returns for one row into a row.

    `is_alone`: it is all of its transaction, which then needs no BEGIN and no COMMIT.
    """

    sql: str
    args: Sequence[object]
    make_row: MakeRow | None = None
    is_alone: bool = False

    def rows(self, fetched: Sequence[Sequence[object]]) -> Sequence[AnyRow]:
        """Return the rows of an answer; their cells have the names of the columns."""
        return [] if self.make_row is None else [self.make_row(cells) for cells in fetched]


#: A transaction as a plain generator: it yields statements and gets their rows, whatever driver runs it. It may be
#: run a second time from its beginning, and must do nothing else that lasts.
Transaction: TypeAlias = Generator[Query, Sequence[AnyRow], T]


class Prepared:
    """A statement with named parameters (`bindparam`); calling it with their values gives a `Query`.

    Values pass through the types of SQLAlchemy, both ways, as in any other statement.
    """

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError(f"{type(statement).__name__} is no statement with parameters")
        self._sql = str(compiled)
        self._fixed: dict[str, object] = {}
        self._parameters: list[tuple[str, Convert | None]] = []
        for name in compiled.positiontup or ():
            bind = compiled.binds[name]
            self._parameters.append((name, bind.type.dialect_impl(dialect).bind_processor(dialect)))
            if not bind.required:
                self._fixed[name] = bind.effective_value
        self._make_row = _row_maker(statement, dialect)

    def __call__(self, **values: object) -> Query:
        given = self._fixed | values
        args = [given[name] if convert is None else convert(given[name]) for name, convert in self._parameters]
        return Query(self._sql, args, self._make_row)


def row_of(*names: str) -> MakeRow:
    """Return what makes rows whose cells have these names."""
    row_type = _NAMED("Row", names)
    return cast("MakeRow", row_type._make)


def _row_maker(statement: Statement, dialect: Dialect) -> MakeRow | None:
    columns = statement.exported_columns
    if not len(columns):
        return None
    make_row = row_of(*columns.keys())
    converts = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
    converted = [(place, convert) for place, convert in enumerate(converts) if convert is not None]

    def make_converted_row(cells: Sequence[object]) -> AnyRow:
        values = list(cells)
        for place, convert in converted:
            values[place] = convert(values[place])
        return make_row(values)

    return make_converted_row if converted else make_row

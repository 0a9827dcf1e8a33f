"""Statements without their literals, and the columns that they look rows up by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.tools.database.statements import (
    MAX_READ_CHARACTERS,
    MAX_SHOWN_CHARACTERS,
    looked_up,
    without_literals,
)


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 1", "SELECT ?"),
        (
            "SELECT a1, \"b 2\" FROM t2 WHERE x = 'it''s' AND y = 1.5e3",
            'SELECT a1, "b 2" FROM t2 WHERE x = ? AND y = ?',
        ),
        (r"SELECT E'a\'b', 'c' FROM t", "SELECT ?, ? FROM t"),
        ("SELECT $$secret$$, $tag$se'cret$tag$, $1", "SELECT ?, ?, $1"),
        ("ALTER ROLE ann PASSWORD 'x'", "ALTER ROLE ann PASSWORD ?"),
        ("SELECT 'cut off in the mid", "SELECT ?"),
        ("SELECT $x$cut off", "SELECT ?"),
        ("SELECT a -- password 'x'\nFROM t /* 'y' */", "SELECT a FROM t"),
        ("SELECT a /* cut off 'y'", "SELECT a"),
        ("SELECT 'a', '--', 'b'", "SELECT ?, ?, ?"),
        ("SELECT B'101', X'ff', U&'x', 0xff", "SELECT ?, ?, ?, ?"),
    ],
)
def test_literals_are_left_out(sql: str, shown: str) -> None:
    assert without_literals(sql) == shown


@given(st.text(max_size=40), st.text(alphabet="abc '\"$-/*\n", max_size=20))
def test_no_text_literal_gets_through(secret: str, around: str) -> None:
    marked = f"TOPSECRET{secret}".replace("'", "''")
    shown = without_literals(f"SELECT x FROM t WHERE a = '{marked}' {around}")  # noqa: S608 - read, not run
    assert "TOPSECRET" not in shown


def test_a_long_statement_is_clipped() -> None:
    assert len(without_literals("SELECT " + "a, " * 500)) == MAX_SHOWN_CHARACTERS


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT * FROM orders WHERE customer = $1", [("orders", "customer")]),
        (
            "SELECT * FROM Orders o WHERE o.Customer > 5 AND o.day IN (1, 2)",
            [("orders", "customer"), ("orders", "day")],
        ),
        (
            "SELECT * FROM orders o JOIN customers c ON c.id = o.customer WHERE c.name BETWEEN 'a' AND 'b'",
            [("customers", "id"), ("orders", "customer"), ("customers", "name")],
        ),
        ("SELECT * FROM a, b WHERE x = 1", []),
        ("SELECT x = 1 FROM a", []),
        ("UPDATE orders SET note = 'x' WHERE customer = 1", [("orders", "customer")]),
        ("DELETE FROM orders WHERE day < 3", [("orders", "day")]),
        ("SELECT * FROM a WHERE id IN (SELECT b.ref FROM b WHERE b.kind = 1)", [("a", "id"), ("b", "kind")]),
        ("SELECT * FROM orders WHERE lower(name) = 'x'", []),
        ("VACUUM orders", []),
        ("this is no SQL (", []),
        ("SELECT 'cut off in the mid", []),
    ],
)
def test_columns_that_are_looked_up(sql: str, columns: list[tuple[str, str]]) -> None:
    assert sorted(looked_up(sql, "postgres")) == sorted(columns)


def test_what_it_cannot_read_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    looked_up("VACUUM INTO '/secret/place'", "sqlite")
    looked_up("CREATE ROLE ann PASSWORD 'topsecret'", "postgres")
    assert not caplog.records


def test_deep_and_long_statements_are_left_alone() -> None:
    deep, padding = "(" * 3_000 + "a = 1" + ")" * 3_000, " " * MAX_READ_CHARACTERS
    assert looked_up(f"SELECT * FROM t WHERE {deep}", "postgres") in ([], [("t", "a")])  # noqa: S608 - read, not run
    assert looked_up(f"SELECT * FROM t WHERE a = 1{padding}", "postgres") == []  # noqa: S608 - read, not run

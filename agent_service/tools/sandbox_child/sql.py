"""Names and texts as SQL, for both sides."""


def identifier(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def sql_text(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"

"""What a person is told in place of a result."""

from typing import Final

REPAIR: Final = "Repair or remove it, and upload the file again."


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """The text is for people; `{name}` in it stands for the file. `kind`: file, refused, sql, memory or timeout."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

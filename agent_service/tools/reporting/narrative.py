"""A model's text in a report: its numbers are those of the cited results, and each shows where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent_service.engine.events import JsonValue
from agent_service.engine.tool import ToolError, ToolRecord
from agent_service.tools.markdown import prose
from agent_service.tools.reporting.numbers import KnownNumbers, dates_in, numbers_in, numbers_in_words
from agent_service.tools.reporting.tables import reference

MAX_SHARED: Final = 3
"""Sources that are shown for a small count, which several results may hold for different reasons."""

MAX_REFUSED: Final = 8
"""Numbers that one refusal names."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report may state numbers of: the cited results, by their number from 1, and the person's own words."""

    cited: tuple[tuple[int, KnownNumbers], ...]
    own: KnownNumbers

    @classmethod
    def of(cls, records: Sequence[ToolRecord], message: str) -> "Sources":
        """Return the sources of a report on these calls."""
        said: JsonValue = numbers_in_words(message)
        cited = tuple((n, KnownNumbers(record.result, record.args)) for n, record in enumerate(records, start=1))
        return cls(cited, KnownNumbers(said))


def checked(text: str, sources: Sources) -> str:
    """Return the text as Markdown with a reference after each number, to the first source that holds it.

    Raises `ToolError` naming the numbers and dates that no cited result holds.
    """
    pieces: list[str] = []
    refused: list[str] = []
    begin = 0
    for said in numbers_in(text):
        holding = [n for n, known in sources.cited if known.has(said)]
        if not holding and not sources.own.has(said):
            refused.append(said.words)
        shown = holding[: MAX_SHARED if said.is_small_count else 1]
        pieces += [prose(text[begin : said.end]), *(f" {reference(n)}" for n in shown)]
        begin = said.end
    pieces.append(prose(text[begin:]))
    known = [known for _, known in sources.cited] + [sources.own]
    refused += [date for date in dates_in(text) if not any(one.has_date(date) for one in known)]
    if refused:
        named = ", ".join(dict.fromkeys(refused[:MAX_REFUSED]))
        raise ToolError(
            f"The text states {named}, which none of the cited results holds. Use the numbers as the tools returned "
            "them (rounding is fine), cite the call that has them, or leave them out."
        )
    return "".join(pieces)

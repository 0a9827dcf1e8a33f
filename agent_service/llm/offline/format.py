"""Numbers, times and tables for people."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

UNKNOWN: Final = "not known"

CENTS_FROM_USD: Final = 1.0
"""From here two decimals say enough; smaller amounts get more."""


def count(value: float | None) -> str:
    """`19366` → `19,366`."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def counted(value: float | None, thing: str) -> str:
    """`1`, `request` → `1 request`; `19366` → `19,366 requests`."""
    return f"{count(value)} {thing}" if value == 1 else f"{count(value)} {thing}s"


def money(value: float | None) -> str:
    """US dollars: `96.782055` → `$96.78`, `0.6` → `$0.60`, `0.004998` → `$0.004998`."""
    if value is None:
        return UNKNOWN
    if value == 0 or abs(value) >= CENTS_FROM_USD:
        return f"${value:,.2f}".replace("$-", "-$")
    whole, _, digits = f"{value:.6f}".partition(".")
    return f"${whole}.{digits.rstrip('0').ljust(2, '0')}".replace("$-", "-$")


def decimal(value: float | None, places: int = 1) -> str:
    """`1154.7` → `1,154.7`."""
    return UNKNOWN if value is None else f"{value:,.{places}f}"


def percent(share: float | None) -> str:
    """`0.61` → `61.0 %`."""
    return UNKNOWN if share is None else f"{share * 100:.1f} %"


def milliseconds(value: float | None) -> str:
    """`812.4` → `812 ms`, `30000` → `30.0 s`."""
    if value is None:
        return UNKNOWN
    return f"{value / 1000:,.1f} s" if value >= 10_000 else f"{value:,.0f} ms"  # noqa: PLR2004 - ten seconds


def moment(value: str) -> str:
    """`2023-11-16T18:15:46.680590Z` → `2023-11-16 18:15:46.680590 UTC`, whole seconds and minutes shorter."""
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return value or UNKNOWN
    if time.microsecond:
        return f"{time:%Y-%m-%d %H:%M:%S.%f} UTC"
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time.second else f"{time:%Y-%m-%d %H:%M} UTC"


def minute(value: str) -> str:
    """`2023-11-16T18:15:46.680590Z` → `2023-11-16 18:15 UTC`."""
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return value or UNKNOWN


def duration(seconds: float | None) -> str:
    """`3501.721937` → `58 min 21.7 s`, `200000` → `2 d 7 h 33 min`."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:.0f} d {hours:.0f} h {minutes:.0f} min"
    if hours:
        return f"{hours:.0f} h {minutes:.0f} min"
    return f"{minutes:.0f} min {rest:.1f} s" if minutes else f"{rest:.1f} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> list[str]:
    """Return a Markdown table: the first `texts` columns to the left, the others to the right. No rows: no table."""
    if not rows:
        return []
    lines = [
        header,
        [*[":---"] * texts, *["---:"] * (len(header) - texts)],
        *([_cell(cell) for cell in row] for row in rows),
    ]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(text: str) -> str:
    """Keep a cell one cell, and no link, picture or tag: names come from people's data."""
    return re.sub(r"[\\|\[]", r"\\\g<0>", text).replace("\n", " ").replace("<", "&lt;")

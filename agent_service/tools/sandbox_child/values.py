"""The database's values as JSON."""

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from agent_service.tools.sandbox_child.frames import Json

MAX_EXACT_INT: Final = 2**53 - 1
"""Up to here JSON's readers keep whole numbers exact."""

MAX_EXACT_DIGITS: Final = 15
"""So many digits a floating point number keeps, whatever they are."""


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

"""All provocations, and what has none: the matrix of reasons and transports without a hole."""

from collections.abc import Sequence
from typing import Final

from tests.support.provocations.calls import CALLS
from tests.support.provocations.closes import CLOSES
from tests.support.provocations.ends import ENDS
from tests.support.provocations.frames import FRAMES
from tests.support.provocations.items import ITEMS
from tests.support.provocations.registry import Provocation
from tests.support.provocations.rest import REST

ALL: Final[Sequence[Provocation]] = (*CALLS, *ITEMS, *ENDS, *FRAMES, *CLOSES, *REST)

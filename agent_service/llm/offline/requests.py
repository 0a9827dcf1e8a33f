"""Taking a message apart that asks for several things: "analyze my costs and create a knowledge base"."""

import re
from typing import Final

_ASKS: Final = (
    r"(?:analy[sz]e|break|creat\w*|build|make|set up|put|generat\w*|simulat\w*|synthe\w+|invent|write|give|show|send|"
    r"report|tell|compar\w*|search|find|look|cut|reduce|lower|save|export|produce|draw|plot|turn|prepare|render|"
    r"summari[sz]e|optimi[sz]e|index|compile|explain|forecast|price|add|delete|list|benchmark|check|audit|what|how|"
    r"which|why|where|when|who|does|do|is|are|can you|could you|i need|i want|we need)\b"
)
_FILLER: Final = r"(?: (?:and|then|also|please|finally|after that|afterwards|next))*"
_BETWEEN: Final = re.compile(
    rf"(?:[;.?!]+ |,? (?:and|plus|then|but)|,){_FILLER},? (?={_ASKS})|[;?!]+ |,? (?:as well as|and also) "
)

MAX_REQUESTS: Final = 4
"""Of one message; what comes after them is understood as part of the last."""

MIN_WORDS: Final = 2
"""Of a request of its own."""


def parts(text: str) -> list[str]:
    """Return the requests in a normalised message, in order; one where it cannot be taken apart."""
    found = [part.strip(" ,") for part in _BETWEEN.split(text, maxsplit=MAX_REQUESTS - 1)]
    return [part for part in found if len(part.split()) >= MIN_WORDS]

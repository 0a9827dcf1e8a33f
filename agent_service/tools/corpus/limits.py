"""How large knowledge bases may be, and what one call may do. Each limit is told in words where it is met."""

from typing import Final

MAX_CORPORA: Final = 50
"""Knowledge bases of one user."""

MAX_DOCUMENTS: Final = 1_000
"""Documents of one knowledge base."""

MAX_PASSAGES: Final = 20_000
"""Passages of one knowledge base."""

MAX_FILE_BYTES: Final = 20 * 1024 * 1024
"""Of a file that becomes a document."""

MAX_TEXT_BYTES: Final = 1024 * 1024
"""Of a document's text, UTF-8."""

MAX_PASSAGE_CHARACTERS: Final = 1_200
"""Of a passage: what a person reads at a glance, and what several of fit into an answer."""

MAX_HEADING_CHARACTERS: Final = 200
"""Of what a passage stands under: the headings above it, joined."""

MAX_TITLE_CHARACTERS: Final = 200
"""Of a document's title."""

MAX_NAME_CHARACTERS: Final = 100
"""Of a knowledge base's name."""

MAX_DESCRIPTION_CHARACTERS: Final = 500
"""Of a knowledge base's description."""

MAX_FILES_AT_ONCE: Final = 20
"""Files, and texts, that one call adds."""

MAX_QUERY_CHARACTERS: Final = 500
"""Of a search."""

MAX_HITS: Final = 10
"""Passages that one search returns."""

MAX_SNIPPET_CHARACTERS: Final = 300
"""Of the part of a passage that shows why it was found."""

MAX_SHOWN_BYTES: Final = 24 * 1024
"""Of the hits or documents in one result as JSON: a result that is too large to show helps nobody."""

SHOWN_DOCUMENTS: Final = 50
"""Documents that statistics list, newest first; fewer where they would take more than `MAX_SHOWN_BYTES`."""

READ_TIMEOUT_MS: Final = 10_000
"""Of the child process that reads one file."""

READ_MEMORY_MIB: Final = 512
"""Of that process."""

MAX_READERS: Final = 2
"""Such processes at once; further files wait for their turn, within their call's time."""

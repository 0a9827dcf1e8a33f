"""Corrections of columns hold for the rest of a conversation, until another file is named."""

from dataclasses import replace

from agent_service.llm.offline.conversation import Conversation
from agent_service.llm.offline.understanding import Understanding, understand


def with_corrections(understanding: Understanding, conversation: Conversation) -> Understanding:
    """Return the understanding with the corrections of this message, and those of earlier ones about the same file."""
    columns: dict[str, str] = {}
    files: tuple[str, ...] = ()
    for message in (*conversation.earlier, conversation.request):
        said = understand(message, (), conversation.now).entities
        if said.files and files and said.files != files:
            columns = {}
        files = said.files or files
        columns |= said.columns
    return replace(understanding, entities=replace(understanding.entities, columns=tuple(columns.items())))


def corrects(conversation: Conversation) -> bool:
    """Return whether this very message corrects columns."""
    return bool(understand(conversation.request, (), conversation.now).entities.columns)

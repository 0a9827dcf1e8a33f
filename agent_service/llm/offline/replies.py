"""The offline model's next turn: which part it plays follows from what it is offered, and from nothing a user says."""

from collections.abc import Callable
from typing import Final, TypeAlias

from agent_service.llm.offline import analyst, generator, librarian, optimizer, planner, reporter, triage, voice
from agent_service.llm.offline.conversation import Conversation, Saying, Words

_Part: TypeAlias = tuple[Callable[[Conversation], bool], Callable[[Conversation], list[Saying]]]

PARTS: Final[tuple[_Part, ...]] = (
    (generator.can_play, generator.reply),
    (optimizer.can_play, optimizer.reply),
    (librarian.can_play, librarian.reply),
    (analyst.can_play, analyst.reply),
    (planner.can_play, planner.reply),
    (reporter.can_play, reporter.reply),
)
"""One for each specialist, tried in order: whether the tools on offer are its own, and its next turn."""


def reply(conversation: Conversation) -> list[Saying]:
    """Return what the model says next: thoughts, then tool calls or text. Deterministic.

    Calls name only tools that are on offer. Raises `ValueError` for a typed output that it does not know.
    """
    if conversation.output_tool:
        if conversation.output_fields >= triage.FIELDS:
            return triage.reply(conversation)
        raise ValueError("the offline model does not know this typed output")
    for can_play, play in PARTS:
        if can_play(conversation):
            return play(conversation)
    if conversation.tools:
        offered = ", ".join(sorted(conversation.tools))
        return [
            Words(f"The offline model does not know how to use these tools: {offered}. Configure a language model.\n")
        ]
    return voice.reply(conversation)

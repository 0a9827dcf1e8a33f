"""The offline model's next turn: which part it plays follows from what it is offered, and from nothing a user says."""

from agent_service.llm.offline import analyst, triage, voice
from agent_service.llm.offline.conversation import Conversation, Saying, Words


def reply(conversation: Conversation) -> list[Saying]:
    """Return what the model says next: thoughts, then tool calls or text. Deterministic.

    Calls name only tools that are on offer. Raises `ValueError` for a typed output that it does not know.
    """
    if conversation.output_tool:
        if conversation.output_fields >= triage.FIELDS:
            return triage.reply(conversation)
        raise ValueError("the offline model does not know this typed output")
    if analyst.can_play(conversation):
        return analyst.reply(conversation)
    if conversation.tools:
        offered = ", ".join(sorted(conversation.tools))
        return [
            Words(f"The offline model does not know how to use these tools: {offered}. Configure a language model.\n")
        ]
    return voice.reply(conversation)

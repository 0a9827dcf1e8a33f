"""The offline model's next turn: which part it plays follows from what it is offered, and from nothing a user says."""

from agent_service.llm import offline_analyst, offline_triage, offline_voice
from agent_service.llm.offline_conversation import Conversation, Saying, Words


def reply(conversation: Conversation) -> list[Saying]:
    """Return what the model says next: thoughts, then tool calls or text. Deterministic.

    Calls name only tools that are on offer. Raises `ValueError` for a typed output that it does not know.
    """
    if conversation.output_tool:
        if conversation.output_fields >= offline_triage.FIELDS:
            return offline_triage.reply(conversation)
        raise ValueError("the offline model does not know this typed output")
    if offline_analyst.can_play(conversation):
        return offline_analyst.reply(conversation)
    if conversation.tools:
        offered = ", ".join(sorted(conversation.tools))
        return [
            Words(f"The offline model does not know how to use these tools: {offered}. Configure a language model.\n")
        ]
    return offline_voice.reply(conversation)

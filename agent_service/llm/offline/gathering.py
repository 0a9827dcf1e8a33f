"""The offline model where it puts together what others found, and says what did not work."""

from collections.abc import Iterator

from agent_service.llm.offline.conversation import Conversation, text

_ADVICE = "Try again in a moment, or ask for less at once: one dataset, one time range or one model."


def gather(conversation: Conversation) -> list[str]:
    """Return the lines of an answer from the findings of this run; none where nobody found or failed at anything."""
    found = [words for _, words in _told(conversation, "text")]
    failed = list(_told(conversation, "failed"))
    lines: list[str] = []
    if failed and not found:
        lines += ["**I could not answer this.** What went wrong:", ""]
    for words in found:
        lines += [words.strip(), ""]
    if failed and found:
        lines += ["**This is not everything:** a part of it did not work.", ""]
    lines += [f"- {agent.replace('_', ' ').capitalize()}: {words}" for agent, words in failed]
    return [*lines, "", _ADVICE] if failed else lines


def _told(conversation: Conversation, key: str) -> Iterator[tuple[str, str]]:
    for agent, output in conversation.findings.items():
        if agent != "supervisor" and (words := text(output, key)):
            yield agent, words

"""The data agent's answers: headline first, then tables, what is missing, what to ask next. Only measured numbers."""

from agent_service.llm.offline import caveats, databases, endings, narrowing
from agent_service.llm.offline.bodies import body
from agent_service.llm.offline.conversation import Conversation
from agent_service.llm.offline.facts import Facts
from agent_service.llm.offline.mapping import mapping
from agent_service.llm.offline.understanding import Understanding


def write_answer(understanding: Understanding, conversation: Conversation) -> str:
    """Return the answer in Markdown."""
    facts = Facts(conversation.exchanges)
    return "\n".join(_lines(understanding, facts, conversation)).strip() + "\n"


def _lines(understanding: Understanding, facts: Facts, conversation: Conversation) -> list[str]:
    database = facts.of("database_analyzer")
    if database is not None:
        return databases.answer(database)
    refused = [exchange for exchange in facts.failed if exchange.tool_name == "database_analyzer"]
    if refused:
        return databases.failed(refused[-1])
    ending = [*endings.next_questions(understanding, facts), *endings.source(facts)]
    if facts.dataset is None:
        return endings.nothing_worked(facts)
    if absent := caveats.absent_columns(understanding, facts):
        return [*absent, *endings.failures(facts), *ending]
    first, *rest = body(understanding, facts) or [""]
    before = caveats.not_there_yet(understanding, facts, conversation)
    part = narrowing.after(understanding, conversation)
    said = caveats.note(understanding, facts, before)
    return [
        *narrowing.before(understanding, conversation),
        *before,
        first,
        *(["", *part] if part else []),
        *(["", *said] if said else []),
        *rest,
        *endings.failures(facts),
        *endings.missing(facts),
        *mapping(understanding, facts),
        *endings.not_available(conversation),
        *ending,
    ]

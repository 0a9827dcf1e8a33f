"""Earlier messages as a model's turns."""

from pydantic_ai.messages import ModelMessage, ModelRequest, TextPart, UserPromptPart

from agent_service.engine.ports import HistoryMessage
from agent_service.llm.transcript import MAX_HISTORY_CHARACTERS, NO_ANSWER, dump_state, history_of, load_state
from storage.records import MessageRole


def user(content: str) -> HistoryMessage:
    return HistoryMessage(MessageRole.USER, content)


def assistant(content: str) -> HistoryMessage:
    return HistoryMessage(MessageRole.ASSISTANT, content)


def said(messages: list[ModelMessage]) -> list[str]:
    parts = [part for message in messages for part in message.parts]
    return [str(part.content) for part in parts if isinstance(part, TextPart | UserPromptPart)]


def test_turns_alternate_and_end_with_an_answer() -> None:
    turns = history_of([user("a"), assistant("b"), user("c"), user("d"), assistant("e"), user("f")])
    assert said(turns) == ["a", "b", "c", NO_ANSWER, "d", "e", "f", NO_ANSWER]
    assert [isinstance(turn, ModelRequest) for turn in turns] == [True, False] * 4


def test_an_answer_without_its_question_is_left_out() -> None:
    assert said(history_of([assistant("a"), user("b"), assistant("c")])) == ["b", "c"]
    assert history_of([assistant("a")]) == []
    assert history_of([]) == []


def test_the_oldest_messages_are_left_out_when_there_are_too_many_characters() -> None:
    long = "x" * (MAX_HISTORY_CHARACTERS - 2)
    assert said(history_of([user("old"), assistant("old"), user("yy"), assistant(long)])) == ["yy", long]
    assert said(history_of([user("old"), assistant("old"), user("yyy"), assistant(long)])) == []


def test_a_state_survives_and_other_versions_are_not_read() -> None:
    messages = history_of([user("a"), assistant("b")])
    assert said(load_state(dump_state(messages))) == ["a", "b"]
    assert load_state(None) == []
    assert load_state(b"{}") == []
    assert load_state(b'{"version":1,"messages":[{"kind":"?"}]}') == []
    assert load_state(dump_state(messages).replace(b'"version":1', b'"version":2')) == []

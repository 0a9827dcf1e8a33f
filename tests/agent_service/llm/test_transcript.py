"""Earlier messages as a model's turns."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypedDict

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import ModelMessage, ModelRequest, TextPart, UserPromptPart

from agent_service.engine.agent import Agent
from agent_service.engine.commands import RunSettings
from agent_service.engine.ports import EarlierResult, Finding, HistoryMessage, Step
from agent_service.engine.tool import ToolRecord
from agent_service.llm.transcript import (
    CHARACTERS_PER_TOKEN,
    MAX_EVIDENCE_TOKENS,
    MAX_HISTORY_TOKENS,
    NO_ANSWER,
    dump_state,
    history_of,
    load_state,
    prompt_of,
)
from storage.records import MessageRole


class Shown(TypedDict):
    """A finding in a prompt."""

    evidence: list[dict[str, object]]


class Facts(TypedDict):
    """What of a prompt's facts these tests look at."""

    findings: list[Shown]
    earlier_results: list[dict[str, str]]


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


def test_the_oldest_messages_are_left_out_when_there_are_too_many_tokens() -> None:
    long = "x" * (MAX_HISTORY_TOKENS * CHARACTERS_PER_TOKEN - 2)
    assert said(history_of([user("old"), assistant("old"), user("yy"), assistant(long)])) == ["yy", long]
    assert said(history_of([user("old"), assistant("old"), user("yyy"), assistant(long)])) == []


def test_a_state_survives_and_other_versions_are_not_read() -> None:
    messages = history_of([user("a"), assistant("b")])
    assert said(load_state(dump_state(messages))) == ["a", "b"]
    assert load_state(None) == []
    assert load_state(b"{}") == []
    assert load_state(b'{"version":1,"messages":[{"kind":"?"}]}') == []
    assert load_state(dump_state(messages).replace(b'"version":1', b'"version":2')) == []


def a_record(number: int, size: int = 1) -> ToolRecord:
    return ToolRecord(f"1-data.c{number}", "data", "usage_summary", {"n": number}, f"Sum {number}.", {"x": "y" * size})


def facts_of(
    *findings: Finding, history: Sequence[HistoryMessage] = (), limit: int | None = MAX_EVIDENCE_TOKENS
) -> Facts:
    step = Step(
        agent=Agent("reporting", "Reporting", "Reports.", "Report."),
        tools=(),
        prompt="report",
        history=history,
        findings=findings,
        references=(),
        context={},
        settings=RunSettings(),
        now=datetime(2026, 1, 2, tzinfo=UTC),
        writes_answer=True,
    )
    words, facts = prompt_of(step, max_evidence_tokens=limit)
    assert words == "report"
    decoded: Facts = json.loads(facts.partition("\n")[2])
    return decoded


def test_evidence_is_whole_as_far_as_there_is_room_the_newest_first() -> None:
    size = MAX_EVIDENCE_TOKENS * CHARACTERS_PER_TOKEN // 2
    data = Finding("data", {"text": "a"}, (a_record(1, size), a_record(2)))
    more = Finding("optimizations", {"text": "b"}, (a_record(3, size),))
    shown = [record for finding in facts_of(data, more)["findings"] for record in finding["evidence"]]
    assert [record["tool_call_id"] for record in shown] == ["1-data.c1", "1-data.c2", "1-data.c3"]
    assert [record["result"] is not None for record in shown] == [False, True, True]
    assert (shown[0]["summary"], shown[0]["left_out"]) == ("Sum 1.", True)
    whole = [record for finding in facts_of(data, more, limit=None)["findings"] for record in finding["evidence"]]
    assert all(record["result"] is not None for record in whole)


@given(st.lists(st.integers(0, MAX_EVIDENCE_TOKENS * CHARACTERS_PER_TOKEN), max_size=6))
def test_evidence_stays_within_its_bound_and_names_everything(sizes: list[int]) -> None:
    finding = Finding("data", {}, tuple(a_record(number, size) for number, size in enumerate(sizes)))
    (shown,) = facts_of(finding)["findings"]
    whole = [record for record in shown["evidence"] if record["result"] is not None]
    assert len(json.dumps(whole)) <= MAX_EVIDENCE_TOKENS * CHARACTERS_PER_TOKEN + 2 * len(sizes) + 2
    assert [record["summary"] for record in shown["evidence"]] == [f"Sum {number}." for number in range(len(sizes))]


def test_results_of_earlier_runs_are_named() -> None:
    answer = HistoryMessage(MessageRole.ASSISTANT, "b", "run", (EarlierResult("1-data.c1", "sums", "Sum.", "file"),))
    assert facts_of(history=[user("a"), answer])["earlier_results"] == [
        {"run_id": "run", "tool_call_id": "1-data.c1", "tool_name": "sums", "summary": "Sum.", "artifact_id": "file"}
    ]

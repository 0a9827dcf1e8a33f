"""Steps against providers over real HTTP, in both protocols: what goes well, and everything that does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models import ModelRequestParameters

from agent_service.engine.agent import Agent
from agent_service.engine.errors import ErrorReason, ModelError, Remedy
from agent_service.engine.tool import ToolContext, ToolOutput, define_tool
from agent_service.llm.loop import CUT_NOTICE, MAX_CORRECTIONS, ModelLoop
from agent_service.llm.models import Models
from agent_service.llm.providers import Waits
from agent_service.llm.resilience import Retries
from tests.support.anthropic_server import ANTHROPIC, event
from tests.support.openai_server import OPENAI, chunk
from tests.support.provider_server import SECRET, Act, Call, Dialect, ProviderServer, Reply, Script
from tests.support.step_sinks import MemorySink
from tests.support.steps import WRITER, sink, step

QUICK: Final = Retries(first_wait_s=0.001, longest_wait_s=0.002, jitter_s=0.001)
SOON: Final = Waits(connect=5, first_byte=0.3, between_bytes=0.2)
BOTH: Final = pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])


@asynccontextmanager
async def speaking(
    dialect: Dialect, script: Script, *, waits: Waits | None = None, step_timeout_ms: int = 30_000
) -> AsyncIterator[tuple[ModelLoop, ProviderServer]]:
    """Yield a loop whose default model is the server that follows the script."""
    async with ProviderServer(script) as server:
        accounts = {dialect.provider: dialect.account(server.url)}
        models = Models([dialect.model], accounts=accounts, waits=waits, retries=QUICK)
        try:
            yield ModelLoop(models, step_timeout_ms=step_timeout_ms), server
        finally:
            await models.aclose()


async def failing(
    dialect: Dialect, *script: Reply, waits: Waits | None = None, step_timeout_ms: int = 30_000
) -> tuple[ModelError, MemorySink, ProviderServer]:
    """Return how a step ends that ends badly."""
    watched = sink()
    async with speaking(dialect, script, waits=waits, step_timeout_ms=step_timeout_ms) as (loop, server):
        with pytest.raises(ModelError) as caught:
            await loop.run(step(), watched)
    error = caught.value
    assert error.reason is ErrorReason.MODEL_UNAVAILABLE
    assert SECRET not in f"{error.message}{error.recovery_suggestions}"
    assert dialect.model.partition(":")[2] in error.message
    return error, watched, server


# ---- What goes well ----


@BOTH
async def test_text_is_streamed_as_it_comes_and_used_tokens_have_their_price(dialect: Dialect) -> None:
    watched = sink()
    async with speaking(dialect, [dialect.answer("It costs ", "12 ", "dollars.")]) as (loop, server):
        result = await loop.run(step(), watched)
    assert result.output == watched.answer == "It costs 12 dollars."
    assert [text for kind, text in watched.log if kind == "text"] == ["It costs ", "12 ", "dollars."]
    assert (watched.usage.input_tokens, watched.usage.output_tokens) == (1000, 500)
    # The catalogue's prices for a million tokens, at the time of writing.
    dollars = {"openai": (2.5, 10), "anthropic": (3, 15)}[dialect.provider]
    assert watched.usage.cost_usd == pytest.approx(dollars[0] / 1000 + dollars[1] / 2000)
    assert server.asked[0].body["stream"] is True


@BOTH
async def test_calls_that_come_in_pieces_run_at_once_and_their_results_go_back(dialect: Dialect) -> None:
    calls = [Call("usage_summary", '{"group_by": ["model"]}', "c1"), Call("cost_breakdown", "{}", "c2")]
    watched = sink()
    async with speaking(dialect, [dialect.answer(calls=calls), dialect.answer("Much.")]) as (loop, server):
        result = await loop.run(step(), watched)
    assert result.output == "Much."
    assert [(call.call_id, call.tool_name, call.args) for call in watched.ran] == [
        ("c1", "usage_summary", {"group_by": ["model"]}),
        ("c2", "cost_breakdown", {}),
    ]
    assert watched.kinds().index("save") < watched.kinds().index("call")
    assert "1234" in str(server.asked[1].body["messages"])
    assert watched.usage.model_requests == 2


@BOTH
async def test_reasoning_is_shown_as_thoughts_and_is_no_part_of_the_answer(dialect: Dialect) -> None:
    thought = "First I look at the usage of November. Then at the costs."
    watched = sink()
    async with speaking(dialect, [dialect.answer("Much.", thought=thought)]) as (loop, _):
        result = await loop.run(step(), watched)
    assert result.output == watched.answer == "Much."
    assert " ".join(text for kind, text in watched.log if kind == "thought") == thought


@BOTH
@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_passing_failure_is_repeated_before_anybody_notices(dialect: Dialect, status: int) -> None:
    watched = sink()
    async with speaking(dialect, [dialect.failure(status), dialect.answer("Much.")]) as (loop, server):
        result = await loop.run(step(), watched)
    assert result.output == "Much."
    assert len(server.asked) == 2
    assert watched.usage.model_requests == 1


# ---- What does not ----


@BOTH
async def test_a_lasting_failure_ends_after_a_bounded_number_of_attempts(dialect: Dialect) -> None:
    error, watched, server = await failing(dialect, *[dialect.failure(500)] * 9)
    assert len(server.asked) == Retries().attempts == 3
    assert "HTTP 500" in error.message
    assert error.remedy is Remedy.AGAIN
    assert not watched.answer


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_rejected_request_is_not_repeated(dialect: Dialect, status: int) -> None:
    _, _, server = await failing(dialect, dialect.failure(status), dialect.answer("Never asked."))
    assert len(server.asked) == 1


@BOTH
async def test_a_provider_that_says_so_is_not_asked_again(dialect: Dialect) -> None:
    failure = dialect.failure(500, x_should_retry="false")
    _, _, server = await failing(dialect, failure, dialect.answer("Never asked."))
    assert len(server.asked) == 1


async def test_a_request_that_is_not_streamed_is_repeated_likewise() -> None:
    message = {"role": "assistant", "content": "Much."}
    whole = {"id": "r1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": []}
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    script = [OPENAI.failure(503), Reply([json.dumps(whole).encode()], 200, "application/json")]
    async with ProviderServer(script) as server:
        models = Models([OPENAI.model], accounts={"openai": OPENAI.account(server.url)}, retries=QUICK)
        asked: list[ModelMessage] = [ModelRequest.user_text_prompt("What does it cost?")]
        response = await models.get().request(asked, None, ModelRequestParameters())
        await models.aclose()
    assert response.text == "Much."
    assert len(server.asked) == 2


@BOTH
@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
async def test_a_pause_longer_than_the_step_is_not_waited_for(dialect: Dialect, form: str) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    headers = {
        "seconds": {"retry_after": "40"},
        "milliseconds": {"retry_after_ms": "40000"},
        "date": {"retry_after": later},
    }
    error, _, server = await failing(dialect, dialect.failure(429, **headers[form]), dialect.answer("Never asked."))
    assert len(server.asked) == 1
    assert error.retry_after_ms == pytest.approx(40_000, abs=2_000)
    assert "takes no more requests for another" in error.message
    assert error.remedy is Remedy.OTHER_MODEL


@BOTH
async def test_a_pause_within_the_step_is_waited_for(dialect: Dialect) -> None:
    script = [dialect.failure(429, retry_after_ms="150"), dialect.answer("Much.")]
    async with speaking(dialect, script) as (loop, _):
        started = asyncio.get_running_loop().time()
        await loop.run(step(), sink())
        assert asyncio.get_running_loop().time() - started >= 0.15


@BOTH
async def test_the_time_of_the_step_bounds_the_pause(dialect: Dialect) -> None:
    failure = dialect.failure(503, retry_after="2")
    error, _, server = await failing(dialect, failure, dialect.answer("Never asked."), step_timeout_ms=1_000)
    assert len(server.asked) == 1
    assert error.retry_after_ms == 2_000


@BOTH
async def test_a_server_that_is_not_there_is_unavailable(dialect: Dialect) -> None:
    async with ProviderServer([]) as server:
        url = server.url
    models = Models([dialect.model], accounts={dialect.provider: dialect.account(url)}, retries=QUICK)
    with pytest.raises(ModelError, match="cannot be made"):
        await ModelLoop(models).run(step(), sink())
    await models.aclose()


@BOTH
async def test_a_stall_before_the_answer_ends_it(dialect: Dialect) -> None:
    error, _, server = await failing(dialect, Reply([Act.STALL]), waits=SOON)
    assert "in time" in error.message
    assert len(server.asked) == 1


@BOTH
async def test_a_stall_in_mid_stream_ends_it_and_is_not_repeated(dialect: Dialect) -> None:
    stalling = dialect.answer("It is ", end=Act.STALL)
    error, watched, server = await failing(dialect, stalling, dialect.answer("Never asked."), waits=SOON)
    assert "in time" in error.message
    assert watched.answer == "It is "
    assert len(server.asked) == 1


@BOTH
@pytest.mark.parametrize("end", [Act.CUT, Act.END], ids=["cut", "ended-early"])
async def test_an_answer_that_breaks_off_is_no_answer(dialect: Dialect, end: Act) -> None:
    cut = dialect.answer("It is ", end=end)
    error, watched, server = await failing(dialect, cut, dialect.answer("Never asked."))
    assert watched.answer == "It is "
    assert error.remedy is Remedy.AGAIN
    assert len(server.asked) == 1
    # What it consumed is counted as far as the provider has said it.
    assert watched.usage.input_tokens == {"openai": 0, "anthropic": 1000}[dialect.provider]


@BOTH
@pytest.mark.parametrize(
    "garbage", [b"data: {broken\n\n", b"data: [1, 2]\n\n", b"\xff\xfe\n\n"], ids=["json", "list", "bytes"]
)
async def test_a_malformed_chunk_ends_it_in_words(dialect: Dialect, garbage: bytes) -> None:
    begun = b"event: message_start\n" if dialect is ANTHROPIC else b""
    async with speaking(dialect, [dialect.answer("It is ", end=begun + garbage)] * 4) as (loop, _):
        with pytest.raises(ModelError):
            await loop.run(step(), sink())


@BOTH
@pytest.mark.parametrize("media_type", ["text/html", "application/json", "text/event-stream"])
async def test_a_page_in_place_of_an_answer_ends_it_in_words(dialect: Dialect, media_type: str) -> None:
    page = Reply([f"<html>Welcome to the proxy! {SECRET}</html>".encode()], 200, media_type)
    error, _, _ = await failing(dialect, *[page] * 4)
    assert error.recovery_suggestions


@BOTH
@pytest.mark.parametrize("pieces", [(), ("Well, ",)], ids=["at-once", "after-text"])
async def test_a_refusal_has_its_own_words_and_is_not_repeated(dialect: Dialect, pieces: tuple[str, ...]) -> None:
    error, _, server = await failing(dialect, dialect.refusal(*pieces), dialect.answer("Never asked."))
    assert "declined" in error.message
    assert error.remedy is Remedy.NONE
    assert error.recovery_suggestions[0].startswith("Say in other words")
    assert len(server.asked) == 1


@BOTH
async def test_a_request_that_is_too_long_has_its_own_words_and_is_not_repeated(dialect: Dialect) -> None:
    error, _, server = await failing(dialect, dialect.too_long(), dialect.answer("Never asked."))
    assert "longer than" in error.message
    assert error.remedy is Remedy.OTHER_MODEL
    assert "Start a new thread." in error.recovery_suggestions
    assert len(server.asked) == 1


@BOTH
async def test_an_answer_that_was_cut_says_so(dialect: Dialect) -> None:
    watched = sink()
    async with speaking(dialect, [dialect.cut("It costs ", "12")]) as (loop, _):
        result = await loop.run(step(), watched)
    assert result.output == watched.answer == f"It costs 12{CUT_NOTICE}"


@BOTH
async def test_tokens_that_are_used_up_before_the_answer_have_their_own_words(dialect: Dialect) -> None:
    error, _, server = await failing(dialect, dialect.cut(), dialect.answer("Never asked."))
    assert "output tokens" in error.message
    assert len(server.asked) == 1


@BOTH
@settings(max_examples=15)
@given(data=st.data())
async def test_it_does_not_matter_how_the_bytes_come(dialect: Dialect, data: st.DataObject) -> None:
    calls = [Call("usage_summary", '{"group_by": ["model"]}')]
    whole = [*dialect.answer("Größe: ", "12 €.", calls=calls, thought="I look … first.").pieces]
    text = b"".join(piece for piece in whole if isinstance(piece, bytes))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=40)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    watched = sink()
    async with speaking(dialect, [Reply(pieces), dialect.answer("Much.")]) as (loop, _):
        await loop.run(step(), watched)
    assert [text for kind, text in watched.log if kind == "thought"] == ["I look … first.", "Größe: 12 €."]
    assert [call.args for call in watched.ran] == [{"group_by": ["model"]}]
    assert watched.answer == "Much."


@BOTH
async def test_an_empty_answer_is_asked_for_again_a_bounded_number_of_times(dialect: Dialect) -> None:
    error, _, server = await failing(dialect, *[dialect.answer()] * 9)
    assert "no answer" in error.message
    assert len(server.asked) == 1 + MAX_CORRECTIONS


@BOTH
async def test_cancellation_closes_the_providers_stream(dialect: Dialect) -> None:
    async with speaking(dialect, [dialect.answer("It is ", end=Act.STALL)]) as (loop, server):
        task = asyncio.create_task(loop.run(step(), sink()))
        await server.stalled.wait()
        assert not server.left.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left.wait()


async def test_an_error_inside_a_stream_is_told_apart_from_its_words() -> None:
    overloaded = event("error", error={"type": "overloaded_error", "message": SECRET})
    error, watched, server = await failing(ANTHROPIC, ANTHROPIC.answer("It is ", end=overloaded))
    assert watched.answer == "It is "
    assert error.remedy is Remedy.AGAIN
    assert len(server.asked) == 1


async def test_chunks_without_content_are_passed_over() -> None:
    kept_alive = Reply([b": ping\n\n", chunk(None), *OPENAI.answer("Much.").pieces])
    async with speaking(OPENAI, [kept_alive]) as (loop, _):
        assert (await loop.run(step(), sink())).output == "Much."


# ---- What a model gets wrong ----


class Threshold(BaseModel):
    percent: int = Field(ge=0, le=100)


async def _threshold(_: ToolContext, args: Threshold) -> ToolOutput:
    return ToolOutput("set", args.model_dump())


THRESHOLD: Final = define_tool("threshold", "Sets it.", Threshold, _threshold)


@BOTH
async def test_a_tool_whose_arguments_stay_wrong_is_taken_away_and_the_step_goes_on(dialect: Dialect) -> None:
    wrong = [dialect.answer(calls=[Call("threshold", '{"percent": 101}', f"c{n}")]) for n in range(MAX_CORRECTIONS + 1)]
    async with speaking(dialect, [*wrong, dialect.answer("Without it.")]) as (loop, server):
        result = await loop.run(step(WRITER, (THRESHOLD,)), sink("threshold"))
    assert result.output == "Without it."
    offered = [bool(asked.body.get("tools")) for asked in server.asked]
    assert offered == [True] * (MAX_CORRECTIONS + 1) + [False]


class Verdict(BaseModel):
    """The typed output of an agent."""

    score: int = Field(ge=1, le=5)


@BOTH
async def test_a_typed_output_may_be_corrected(dialect: Dialect) -> None:
    judge = Agent("judge", "Judge", "Judges.", "Judge.", (), Verdict)
    script = [
        dialect.answer(calls=[Call("final_result", '{"score": 9}')]),
        dialect.answer(calls=[Call("final_result", '{"score": 4}', "c2")]),
    ]
    async with speaking(dialect, script) as (loop, _):
        assert (await loop.run(step(judge, ()), sink())).output == Verdict(score=4)


@BOTH
async def test_a_typed_output_that_stays_wrong_ends_the_step(dialect: Dialect) -> None:
    judge = Agent("judge", "Judge", "Judges.", "Judge.", (), Verdict)
    wrong = [dialect.answer(calls=[Call("final_result", '{"score": 9}', f"c{n}")]) for n in range(9)]
    async with speaking(dialect, wrong) as (loop, server):
        with pytest.raises(ModelError, match="no answer that can be used"):
            await loop.run(step(judge, ()), sink())
    assert len(server.asked) == 1 + MAX_CORRECTIONS

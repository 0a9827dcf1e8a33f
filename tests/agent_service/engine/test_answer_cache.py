"""When an answer is given again, and that it never is where anything that it came from is another."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from redis.asyncio import Redis

from agent_service.engine import answer_cache
from agent_service.engine.answer_cache import normalised
from agent_service.engine.clock import SystemClock
from agent_service.engine.commands import Reference, RunSettings
from agent_service.engine.events import (
    AgentProgress,
    AnswerSource,
    ArtifactCreated,
    Effect,
    PartialResult,
    ProgressStage,
    ToolExecuting,
)
from agent_service.engine.intents import INTENT_RULES, Intent
from agent_service.engine.ports import Step, StepResult, StepSink, ToolCall
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from storage.interfaces import Cache
from storage.memory_cache import MemoryCache
from storage.redis_cache import RedisCache
from tests.support.canned_tools import AnyArguments, CannedTools
from tests.support.conversations import AGENTS, USER, Bench, Told
from tests.support.loops import SPECIALISTS, Part, ScriptedLoop, down, triaged
from tests.support.storage import new_id

REDIS_URL = "redis://127.0.0.1:6379/0"


class MovedClock(SystemClock):
    """The machine's time, moved on by what the test says."""

    def __init__(self) -> None:
        self.moved = timedelta()

    def now(self) -> datetime:
        return super().now() + self.moved


class Asking:
    """A bench with a cache, whose data agent counts its answers: `answer 1`, `answer 2`, …"""

    def __init__(
        self, tools: Sequence[Tool[BaseModel]] = (), *, cache: Callable[[Callable[[], datetime]], Cache] = MemoryCache
    ) -> None:
        self.clock = MovedClock()
        self.loop = ScriptedLoop(triaged(Intent.COST_ANALYSIS))
        self.loop.parts["data"] = self.counts()
        self.tools = CannedTools()
        self.answers = 0
        self.bench = Bench(
            agents=(*AGENTS, *SPECIALISTS),
            tools=[*tools, *(tool for tool in self.tools.make() if tool.name not in {own.name for own in tools})],
            loop=self.loop,
            cache=cache(self.clock.now),
            clock=self.clock,
        )

    def counts(self, *calls: ToolCall) -> Part:
        async def part(_step: Step, sink: StepSink) -> StepResult:
            for call in calls:
                await sink.call_tool(call)
            self.answers += 1
            await sink.text(f"answer {self.answers}")
            return StepResult("")

        return part


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    one = Asking()
    async with one.bench:
        yield one


def planned(told: Told) -> str:
    (message,) = [body.message for body in told.bodies(AgentProgress) if body.stage is ProgressStage.PLANNED]
    return message


async def test_the_same_request_gets_the_same_answer_labelled_and_streamed(asking: Asking) -> None:
    bench = asking.bench
    first = await bench.ask("Analyze my AI costs")
    asking.clock.moved = timedelta(minutes=4, seconds=30)
    again = await bench.ask("  analyze my  AI costs?! ")
    assert (first.final.source, first.final.content) == (AnswerSource.COMPUTED, "answer 1")
    assert (again.final.source, again.final.content) == (AnswerSource.CACHE, "answer 1")
    assert again.final.message_id != first.final.message_id
    assert again.final.suggestions == first.final.suggestions
    assert [piece.text for piece in again.bodies(PartialResult)] == ["answer 1"]
    assert planned(again) == "I answered this 4 minutes ago from the same data: that answer is used again."
    assert asking.loop.played == ["triage", "data", "triage"]
    assert again.completed.usage.tool_calls == 0


async def test_missing_data_and_files_are_given_again_too(asking: Asking) -> None:
    asking.loop.parts["data"] = asking.counts(ToolCall("a", "usage_summary", {}))
    first = await asking.bench.ask("costs")
    again = await asking.bench.ask("costs")
    assert again.final.source is AnswerSource.CACHE
    assert again.final.missing_data == first.final.missing_data == ("model: It prices. Say which.",)
    assert not again.bodies(ToolExecuting)


@pytest.mark.parametrize("seconds_too_many", [-2, 1])
async def test_an_answer_is_given_again_until_its_time_is_over(asking: Asking, seconds_too_many: int) -> None:
    await asking.bench.ask("costs")
    asking.clock.moved = timedelta(seconds=INTENT_RULES[Intent.COST_ANALYSIS].cache_ttl_s + seconds_too_many)
    assert (await asking.bench.ask("costs")).final.content == ("answer 1" if seconds_too_many < 0 else "answer 2")


async def test_a_cache_that_keeps_for_longer_does_not_make_it_younger() -> None:
    kept: dict[str, bytes] = {}

    class Hoarder(MemoryCache):
        async def get(self, key: str) -> bytes | None:
            return kept.get(key)

        async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
            kept[key] = value

    asking = Asking(cache=Hoarder)
    async with asking.bench as bench:
        await bench.ask("costs")
        assert (await bench.ask("costs")).final.content == "answer 1"
        asking.clock.moved = timedelta(seconds=1801)
        assert (await bench.ask("costs")).final.content == "answer 2"
        asking.clock.moved = timedelta(hours=-1)
        assert (await bench.ask("costs")).final.content == "answer 3"
        for key in kept:
            kept[key] = b"{"
        assert (await bench.ask("costs")).final.content == "answer 4"


@pytest.mark.parametrize("intent", list(Intent))
async def test_each_intent_has_a_time_of_its_own(asking: Asking, intent: Intent) -> None:
    asking.loop.triage = triaged(intent, "data", sufficiency="partial")
    for name in ("reporting", "corpus_admin", "synthetic_data"):
        asking.loop.parts[name] = asking.counts()
    asking.loop.parts["supervisor"] = asking.counts()
    asking.loop.parts["optimizations"] = asking.loop.parts["data"] = _silent
    if intent not in {Intent.OPTIMIZATION, Intent.REPORTING, Intent.CORPUS, Intent.SYNTHETIC}:
        asking.loop.parts["data"] = asking.counts()
    await asking.bench.ask("costs")
    again = await asking.bench.ask("costs")
    assert (again.final.source is AnswerSource.CACHE) is (intent not in {Intent.CORPUS, Intent.SYNTHETIC})


async def _silent(_step: Step, _sink: StepSink) -> StepResult:
    return StepResult("Found.")


# What makes it another request


async def test_two_users_never_share_an_answer(asking: Asking) -> None:
    await asking.bench.ask("costs")
    other = await asking.bench.ask("costs", caller=replace(USER, user_id="bob"))
    assert (other.final.source, other.final.content) == (AnswerSource.COMPUTED, "answer 2")
    assert (await asking.bench.ask("costs")).final.content == "answer 1"


@pytest.mark.parametrize(
    ("content", "settings", "scopes"),
    [
        ("costs in May", RunSettings(), frozenset[str]()),
        ("costs", RunSettings(model="offline"), frozenset[str]()),
        ("costs", RunSettings(temperature=0.5), frozenset[str]()),
        ("costs", RunSettings(max_output_tokens=10), frozenset[str]()),
        ("costs", RunSettings(), frozenset({"databases:read"})),
        ("costs", RunSettings(use_cache=False), frozenset[str]()),
    ],
    ids=["words", "model", "temperature", "length", "scopes", "opt-out"],
)
async def test_another_request_gets_another_answer(
    asking: Asking, content: str, settings: RunSettings, scopes: frozenset[str]
) -> None:
    await asking.bench.ask("costs")
    told = await asking.bench.ask(content, settings=settings, caller=replace(USER, scopes=scopes))
    assert (told.final.source, told.final.content) == (AnswerSource.COMPUTED, "answer 2")


async def test_the_same_words_about_another_file_are_another_request(asking: Asking) -> None:
    files = [await asking.bench.put(name, b"a,b\n1,2\n") for name in ("a.csv", "b.csv")]
    for file in (None, *files, *files):
        await asking.bench.ask("costs", references=(Reference(file_id=file.file_id),) if file else ())
    assert asking.answers == 3


async def test_settings_that_bound_a_run_do_not_make_it_another(asking: Asking) -> None:
    await asking.bench.ask("costs")
    told = await asking.bench.ask("costs", settings=RunSettings(budget_usd=1, timeout_ms=9_000))
    assert told.final.source is AnswerSource.CACHE


async def test_what_is_asked_without_a_cache_is_not_kept_either(asking: Asking) -> None:
    await asking.bench.ask("costs", settings=RunSettings(use_cache=False))
    assert (await asking.bench.ask("costs")).final.content == "answer 2"


async def test_the_same_words_about_another_time_are_another_request(asking: Asking) -> None:
    await asking.bench.ask("costs of yesterday")
    moved = asking.loop.triage.model_copy(deep=True)
    moved.entities.start_time = asking.clock.now()
    asking.loop.triage = moved
    assert (await asking.bench.ask("costs of yesterday")).final.content == "answer 2"


async def test_a_new_or_deleted_dataset_makes_it_another_request(asking: Asking) -> None:
    bench = asking.bench
    await bench.ask("costs")
    file = await bench.put("log.csv", b"a,b\n1,2\n")
    assert (await bench.ask("costs")).final.content == "answer 2"
    assert (await bench.ask("costs")).final.content == "answer 2"
    await bench.storage.files.delete(USER.user_id, file.file_id)
    assert (await bench.ask("costs")).final.content == "answer 1"
    await bench.put("log.csv", b"a,b\n1,2\n")
    assert (await bench.ask("costs")).final.content == "answer 3"


async def test_an_answer_over_data_that_changed_meanwhile_is_not_kept(asking: Asking) -> None:
    bench = asking.bench

    async def part(step: Step, sink: StepSink) -> StepResult:
        if asking.answers == 0:
            await bench.put("log.csv", b"a,b\n1,2\n")
        return await asking.counts()(step, sink)

    asking.loop.parts["data"] = part
    await bench.ask("costs")
    (file,) = (await bench.storage.files.list(USER.user_id, page_size=10)).items
    await bench.storage.files.delete(USER.user_id, file.file_id)
    assert (await bench.ask("costs")).final.content == "answer 2"


# Threads


async def test_a_message_that_goes_on_with_others_is_neither_looked_up_nor_kept(asking: Asking) -> None:
    bench = asking.bench
    first = await bench.ask("costs")
    follow_up = await bench.ask("costs", thread_id=first.run.thread_id)
    assert follow_up.final.content == "answer 2"
    assert (await bench.ask("costs")).final.content == "answer 1"


async def test_a_message_that_stands_for_itself_is_looked_up_in_any_thread(asking: Asking) -> None:
    bench = asking.bench
    first = await bench.ask("costs")
    asking.loop.triage = asking.loop.triage.model_copy(update={"standalone": True})
    assert (await bench.ask("costs", thread_id=first.run.thread_id)).final.source is AnswerSource.CACHE


async def test_offline_a_question_that_is_asked_twice_in_a_thread_is_answered_from_the_cache() -> None:
    clock = MovedClock()
    async with Bench(tools=CannedTools().make(), cache=MemoryCache(clock.now), clock=clock) as bench:
        first = await bench.ask("Analyze my AI costs")
        follow_up = await bench.ask("And by feature?", thread_id=first.run.thread_id)
        again = await bench.ask("Analyze my AI costs!", thread_id=first.run.thread_id)
        follow_up_again = await bench.ask("And by feature?", thread_id=first.run.thread_id)
    assert follow_up.final.source is AnswerSource.COMPUTED
    assert again.final.source is AnswerSource.CACHE
    assert again.final.content == first.final.content
    assert follow_up_again.final.source is AnswerSource.COMPUTED


# What is not worth keeping


@pytest.mark.parametrize(
    ("effect", "kept"), [(Effect.UNSAFE, False), (Effect.IDEMPOTENT, False), (Effect.READ_ONLY, True)]
)
async def test_an_answer_whose_tools_did_something_is_not_kept(effect: Effect, *, kept: bool) -> None:
    (looks,) = (tool for tool in CannedTools().make() if tool.name == "usage_summary")
    asking = Asking([replace(looks, effect=effect)])
    asking.loop.parts["data"] = asking.counts(ToolCall("a", "usage_summary", {}))
    async with asking.bench as bench:
        await bench.ask("costs")
        assert (await bench.ask("costs")).final.content == ("answer 1" if kept else "answer 2")


async def test_an_answer_after_a_tool_that_failed_is_not_kept(asking: Asking) -> None:
    asking.tools.broken = "usage_summary"
    asking.loop.parts["data"] = asking.counts(ToolCall("a", "usage_summary", {}))
    await asking.bench.ask("costs")
    assert (await asking.bench.ask("costs")).final.content == "answer 2"


async def test_degraded_answers_and_questions_are_not_kept(asking: Asking) -> None:
    counts = asking.loop.parts["data"]
    asking.loop.parts["data"] = down()
    asking.loop.parts["reporting"] = asking.counts()
    assert (await asking.bench.ask("costs")).final.degraded
    asking.loop.parts["data"] = counts
    assert (await asking.bench.ask("costs")).final.source is AnswerSource.COMPUTED
    asking.loop.triage = triaged(Intent.COST_ANALYSIS, confidence=0.1, question="What?")
    assert (await asking.bench.ask("what?")).final.content == "What?"
    assert (await asking.bench.ask("what?")).final.source is AnswerSource.COMPUTED


async def test_below_the_threshold_no_answer_is_given_again(asking: Asking) -> None:
    await asking.bench.ask("costs")
    asking.loop.triage = triaged(Intent.COST_ANALYSIS, confidence=0.84, question="Costs of what?")
    assert (await asking.bench.ask("costs")).final.content == "Costs of what?"
    asking.loop.triage = triaged(Intent.COST_ANALYSIS, confidence=0.85)
    assert (await asking.bench.ask("costs")).final.content == "answer 1"


async def test_an_answer_with_a_file_is_given_again_only_while_the_file_is_there() -> None:
    async def draw(context: ToolContext, _: BaseModel) -> ToolOutput:
        await context.artifacts.save("costs.svg", "image/svg+xml", b"<svg/>")
        return ToolOutput("Drawn.", {})

    asking = Asking([Tool("usage_summary", "Draws.", AnyArguments, Effect.READ_ONLY, 10_000, draw)])
    asking.loop.parts["data"] = asking.counts(ToolCall("a", "usage_summary", {}))
    async with asking.bench as bench:
        first = await bench.ask("costs")
        again = await bench.ask("costs")
        assert again.final.source is AnswerSource.CACHE
        assert [(one.name, one.size_bytes) for one in again.bodies(ArtifactCreated)] == [("costs.svg", 6)]
        assert again.final.artifact_ids == first.final.artifact_ids
        await bench.storage.files.delete(USER.user_id, first.final.artifact_ids[0])
        assert (await bench.ask("costs")).final.content == "answer 2"


async def test_a_dataset_that_a_run_makes_is_data_too() -> None:
    async def generate(context: ToolContext, _: BaseModel) -> ToolOutput:
        await context.artifacts.save("rows.csv", "text/csv", b"a,b\n1,2\n")
        return ToolOutput("Made.", {})

    asking = Asking([Tool("usage_summary", "Makes.", AnyArguments, Effect.READ_ONLY, 10_000, generate)])
    async with asking.bench as bench:
        await bench.ask("costs")
        asking.loop.parts["data"] = asking.counts(ToolCall("a", "usage_summary", {}))
        await bench.ask("make rows")
        assert (await bench.ask("costs")).final.content == "answer 3"


async def test_who_has_too_many_files_is_not_cached_for(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MAX_FILES", 2)
    await asking.bench.put("a.csv", b"1")
    await asking.bench.put("b.csv", b"2")
    await asking.bench.ask("costs")
    assert (await asking.bench.ask("costs")).final.content == "answer 1"
    await asking.bench.put("c.csv", b"3")
    await asking.bench.ask("costs")
    assert (await asking.bench.ask("costs")).final.content == "answer 3"


async def test_an_answer_of_another_version_or_catalogue_is_not_given_again() -> None:
    shared: list[MemoryCache] = []

    def one_for_all(now: Callable[[], datetime]) -> Cache:
        shared.append(MemoryCache(now))
        return shared[0]

    sources = []
    for edition in ("1-1", "1-2", "1-1"):
        asking = Asking(cache=one_for_all)
        asking.bench.edition = edition
        async with asking.bench as bench:
            sources.append((await bench.ask("costs")).final.source)
    assert sources == [AnswerSource.COMPUTED, AnswerSource.COMPUTED, AnswerSource.CACHE]


async def test_processes_that_share_a_redis_share_their_answers() -> None:
    prefix = f"apex-test:{new_id()}:"
    client = Redis.from_url(REDIS_URL)
    try:
        await client.ping()
    except OSError:
        await client.aclose()
        pytest.skip(f"there is no Redis at {REDIS_URL}")
    told: list[Told] = []
    for asking in (Asking(cache=lambda _: RedisCache(REDIS_URL, prefix=prefix)) for _ in range(2)):
        async with asking.bench as bench:
            told.append(await bench.ask("costs"))
            assert bench.cache is not None
            await bench.cache.close()
    keys = [key async for key in client.scan_iter(f"{prefix}*")]
    left_s = [await client.ttl(key) for key in keys]
    await client.delete(*keys)
    await client.aclose()
    assert [one.final.source for one in told] == [AnswerSource.COMPUTED, AnswerSource.CACHE]
    assert told[0].final.content == told[1].final.content
    assert [1790 < left <= 1800 for left in left_s] == [True]


# The words of a request


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Analyze my AI costs", " analyze   my ai\tCOSTS?! ", True),
        ("costs, please.", "costs please", True),
        ("gpt-4.5 costs", "gpt-45 costs", False),
        ("-20 % cost", "20 % cost", False),
        ("cost < $5", "cost > $5", False),
        ("SELECT 'A' FROM data", "select 'a' from data", False),
        ("feature “Chat”", "feature “chat”", False),
        ("\uff43\uff4f\uff53\uff54\uff53", "costs", True),
        ("Straße", "STRASSE", True),
    ],
)
def test_only_what_makes_no_difference_is_left_out(one: str, other: str, *, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)

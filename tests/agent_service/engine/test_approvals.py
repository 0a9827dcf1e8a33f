"""Calls that wait for a person: who is asked, what a decision does, and that nothing is lost meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

import pytest
from pydantic import BaseModel, Field
from structlog.typing import EventDict

from agent_service.engine.approval_gate import MAX_QUESTION_BYTES
from agent_service.engine.approvals import MAX_REASON_CHARACTERS, Verdict, approval_id_of, reason_to_ask
from agent_service.engine.attempt import MAX_CLAIMS
from agent_service.engine.clock import SystemClock
from agent_service.engine.commands import RunCommand, RunSettings
from agent_service.engine.errors import ApexError, ErrorReason
from agent_service.engine.events import (
    AgentCompleted,
    AgentError,
    AgentProgress,
    AgentThinking,
    ApprovalDecision,
    ApprovalRequested,
    ApprovalResolved,
    CompletionStatus,
    Effect,
    FinalResponse,
    JsonObject,
    ProgressStage,
    ToolCompleted,
    ToolExecuting,
    ToolStatus,
)
from agent_service.engine.ports import Clock, ToolCall, ToolOutcome
from agent_service.engine.tool import Tool, ToolContext, ToolOutput
from agent_service.engine.work import Work
from storage.interfaces import Storage
from storage.memory import MemoryStorage
from storage.records import RunRecord, RunStatus, ThreadConflict
from tests.support.gates import TIMEOUT_S, Gate
from tests.support.waiting import eventually
from tests.support.workshop import ANN, BOB, STEP, NoArgs, Told, Workshop, a_tool, answer, think, user

SECRET = "sk-0123456789abcdef0123456789"
APPROVE = Verdict(ApprovalDecision.APPROVED)
REJECT = Verdict(ApprovalDecision.REJECTED, "Too dear.")


class PayArgs(BaseModel):
    """What to pay."""

    amount: int = Field(default=1, ge=1, le=100)
    api_key: str = ""


def edit(**args: str | int) -> Verdict:
    return Verdict(ApprovalDecision.EDITED, "", args)


class Options(TypedDict, total=False):
    """Of the workshop, as far as tests here differ."""

    slots: int
    alone: bool
    worker_id: str
    clock: Clock
    beat_interval_ms: int
    run_timeout_ms: int
    approval_timeout_ms: int
    broadcast_poll_ms: int


@dataclass(slots=True)
class Till:
    """Takes payments, which cannot be undone, and plays calls as a step of the data agent makes them."""

    effect: Effect = Effect.UNSAFE
    paid: list[PayArgs] = field(default_factory=list)
    outcomes: list[ToolOutcome] = field(default_factory=list)
    #: The arguments of the calls of one response.
    calls: Sequence[JsonObject] = ({},)

    def tool(self, *, scopes: frozenset[str] = frozenset()) -> Tool[BaseModel]:
        async def pay(_: ToolContext, args: BaseModel) -> ToolOutput:
            assert isinstance(args, PayArgs)
            self.paid.append(args)
            return ToolOutput(f"Paid {args.amount}.", {"amount": args.amount})

        return Tool("pay", "Pays. For good.", PayArgs, self.effect, 10_000, pay, scopes)

    async def script(self, work: Work) -> FinalResponse:
        await think(work)
        names = frozenset({"pay"})
        calls = [ToolCall(f"{number}", "pay", args) for number, args in enumerate(self.calls)]
        self.outcomes = await asyncio.gather(*(work.dispatcher.call("data", STEP, call, names) for call in calls))
        return await answer(work)

    def shop(self, storage: Storage, **options: Unpack[Options]) -> Workshop:
        shop = Workshop(storage, tools=[self.tool()], **options)
        shop.supervisor.scripts["pay"] = self.script
        return shop


async def asked(shop: Workshop, run: RunRecord, times: int = 1) -> list[ApprovalRequested]:
    """Return the questions of a run, as soon as it waits with so many."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            so_far = await shop.so_far(run)
            questions = so_far.of(ApprovalRequested)
            if len(questions) >= times and (await shop.now(run)).status is RunStatus.WAITING_APPROVAL:
                return questions
            await asyncio.sleep(0)


async def decide(shop: Workshop, run: RunRecord, verdict: Verdict = APPROVE, place: int = 0) -> ApprovalDecision:
    """Decide about a question of a run that waits."""
    question = (await asked(shop, run, place + 1))[place]
    return await shop.runs.decide(ANN, run.run_id, question.approval_id, verdict)


async def played(storage: Storage, till: Till, verdict: Verdict) -> Told:
    """Return what a run tells whose first question gets this answer."""
    async with till.shop(storage) as shop:
        run = await shop.accept("pay")
        await decide(shop, run, verdict)
        return await shop.told(run)


async def test_a_call_waits_for_consent_and_leaves_its_slot(storage: Storage) -> None:
    till = Till()
    async with till.shop(storage, slots=1) as shop:
        run = await shop.accept("pay")
        (question,) = await asked(shop, run)
        waits = await shop.now(run)
        assert (waits.worker_id, waits.lease_expire_time, till.paid) == (None, None, [])
        assert (question.tool_name, question.tool_args) == ("pay", {})
        assert "cannot be undone" in question.reason
        # The only slot is free.
        assert (await shop.told(await shop.accept("hello"))).of(FinalResponse)
        assert await decide(shop, run) is ApprovalDecision.APPROVED
        told = await shop.told(run)
    assert [args.amount for args in till.paid] == [1]
    assert told.kinds()[1:] == [
        "AgentThinking",
        "ApprovalRequested",
        "ApprovalResolved",
        "AgentThinking",
        "ToolExecuting",
        "ToolCompleted",
        "AgentThinking",
        "PartialResult",
        "FinalResponse",
        "AgentCompleted",
    ]
    assert told.of(ApprovalResolved) == [ApprovalResolved(question.approval_id, ApprovalDecision.APPROVED, "ann")]
    # Nobody has taken anything over.
    assert set(told.attempts) == {1}
    assert told.of(AgentCompleted)[0].usage.tool_calls == 1


async def test_a_watcher_sees_the_question_and_stays_for_the_answer(memory: MemoryStorage) -> None:
    async with Till().shop(memory) as shop:
        run = await shop.accept("pay")
        watching = asyncio.create_task(shop.told(run))
        await asked(shop, run)
        assert not watching.done()
        await decide(shop, run)
        assert (await watching).of(FinalResponse)


async def test_a_waiting_run_survives_every_restart(storage: Storage) -> None:
    till = Till()
    async with till.shop(storage) as first:
        run = await first.accept("pay")
        before = await asked(first, run)
        await first.crash()
    for _ in range(2):
        async with till.shop(storage) as idle:
            assert (await idle.now(run)).status is RunStatus.WAITING_APPROVAL
            assert not idle.supervisor.begun
    async with till.shop(storage) as last:
        assert await asked(last, run) == before
        await decide(last, run)
        told = await last.told(run)
    assert [args.amount for args in till.paid] == [1]
    assert set(told.attempts) == {1}
    assert len(told.of(ApprovalRequested)) == 1


async def test_a_rejected_call_never_begins_and_the_model_hears_why(storage: Storage) -> None:
    till = Till()
    told = await played(storage, till, REJECT)
    (outcome,) = till.outcomes
    assert (outcome.status, outcome.result) == (ToolStatus.DENIED, None)
    assert "rejected" in outcome.error
    assert "Too dear." in outcome.error
    assert not till.paid
    assert not told.of(ToolExecuting)
    assert told.of(ApprovalResolved)[0].comment == "Too dear."
    assert told.of(AgentCompleted)[0].usage.tool_calls == 0


async def test_a_call_runs_with_the_arguments_that_a_person_gave(storage: Storage) -> None:
    till = Till(calls=[{"amount": 99}])
    told = await played(storage, till, edit(amount=3))
    assert [args.amount for args in till.paid] == [3]
    assert told.of(ApprovalRequested)[0].tool_args == {"amount": 99}
    assert told.of(ToolExecuting)[0].tool_args == {"amount": 3}
    assert told.of(ApprovalResolved)[0].decision is ApprovalDecision.EDITED
    (outcome,) = till.outcomes
    assert outcome.summary == 'A person changed the arguments to {"amount":3}. Paid 3.'
    assert outcome.summary == told.of(ToolCompleted)[0].result_summary


async def test_edited_arguments_survive_a_crash_of_whoever_runs_the_call(storage: Storage) -> None:
    gate, amounts = Gate(is_open=False), list[int]()

    async def put(_: ToolContext, args: BaseModel) -> ToolOutput:
        assert isinstance(args, PayArgs)
        amounts.append(args.amount)
        await gate.passage()
        return ToolOutput("Put.", {})

    till = Till(calls=[{"amount": 99}])
    tool: Tool[BaseModel] = Tool(
        "pay", "Puts.", PayArgs, Effect.IDEMPOTENT, 10_000, put, needs_approval=lambda _: "It is much."
    )
    async with Workshop(storage, tools=[tool]) as first:
        first.supervisor.scripts["pay"] = till.script
        run = await first.accept("pay")
        await decide(first, run, edit(amount=3))
        await gate.reached()
        await first.crash()
    gate.open()
    async with Workshop(storage, tools=[tool]) as second:
        second.supervisor.scripts["pay"] = till.script
        told = await second.told(run)
    assert amounts == [3, 3]
    assert len(told.of(ApprovalRequested)) == len(told.of(ToolExecuting)) == 1
    assert [body.stage for body in told.of(AgentProgress)] == [ProgressStage.RESUMED]


async def test_what_was_hidden_from_the_person_stays_as_it_was(memory: MemoryStorage) -> None:
    till = Till(calls=[{"amount": 99, "api_key": SECRET}])
    told = await played(memory, till, edit(amount=3, api_key="[redacted]"))
    assert till.paid == [PayArgs(amount=3, api_key=SECRET)]
    assert told.of(ApprovalRequested)[0].tool_args == {"amount": 99, "api_key": "[redacted]"}
    assert SECRET not in str(told.events)
    assert SECRET not in till.outcomes[0].summary


@pytest.mark.parametrize(
    ("args", "path"),
    [({"amount": 101}, "edited_args.amount"), ({"amount": 1, "api_key": ["a"]}, "edited_args.api_key")],
    ids=["too much", "wrong type"],
)
async def test_edited_arguments_must_fit_the_tool(memory: MemoryStorage, args: JsonObject, path: str) -> None:
    async with Till().shop(memory) as shop:
        run = await shop.accept("pay")
        with pytest.raises(ApexError) as refusal:
            await decide(shop, run, Verdict(ApprovalDecision.EDITED, "", args))
        assert refusal.value.reason is ErrorReason.INVALID_ARGUMENT
        assert [violation.field for violation in refusal.value.violations] == [path]
        assert (await shop.now(run)).status is RunStatus.WAITING_APPROVAL
        await decide(shop, run, edit(amount=100))
        assert (await shop.told(run)).of(ToolCompleted)[0].result == {"amount": 100}


async def test_a_question_lapses_and_the_model_hears_it(storage: Storage) -> None:
    till = Till(calls=[{}, {"amount": 2}])
    async with till.shop(storage, approval_timeout_ms=1) as shop:
        told = await shop.told(await shop.accept("pay"))
    assert [(body.decision, body.decided_by) for body in told.of(ApprovalResolved)] == [
        (ApprovalDecision.EXPIRED, ""),
        (ApprovalDecision.EXPIRED, ""),
    ]
    assert len({body.expire_time for body in told.of(ApprovalRequested)}) == 1
    assert [outcome.status for outcome in till.outcomes] == [ToolStatus.DENIED] * 2
    assert "in time" in till.outcomes[0].error
    assert not till.paid
    assert told.of(FinalResponse)


async def test_a_question_lapses_although_nobody_was_there(storage: Storage) -> None:
    till = Till()
    async with till.shop(storage, approval_timeout_ms=0, beat_interval_ms=60_000) as first:
        run = await first.accept("pay")
        await asked(first, run)
        await first.crash()
    async with till.shop(storage) as second:
        assert (await second.told(run)).of(ApprovalResolved)[0].decision is ApprovalDecision.EXPIRED


async def test_whoever_comes_too_late_is_told_so(storage: Storage) -> None:
    async with Till().shop(storage, approval_timeout_ms=0, beat_interval_ms=60_000, slots=1) as shop:
        run = await shop.accept("pay")
        with pytest.raises(ApexError, match="expired") as refusal:
            await decide(shop, run)
        assert refusal.value.reason is ErrorReason.RUN_CONFLICT


async def test_many_that_look_find_a_lapsed_question_once(storage: Storage) -> None:
    async with Till().shop(storage, approval_timeout_ms=0, beat_interval_ms=60_000, slots=1) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        others = [Till().shop(storage, alone=False, slots=0, worker_id=f"other-{number}") for number in range(3)]
        for other in others:
            await other.__aenter__()
        told = await shop.told(run)
        for other in others:
            await other.__aexit__(None, None, None)
    assert len(told.of(ApprovalResolved)) == 1


async def test_somebody_elses_question_is_not_there(storage: Storage) -> None:
    async with Till().shop(storage) as shop:
        run = await shop.accept("pay")
        (question,) = await asked(shop, run)
        for caller, approval_id in ((BOB, question.approval_id), (ANN, run.run_id)):
            for verdict in APPROVE, REJECT, edit(amount=101):
                with pytest.raises(ApexError) as refusal:
                    await shop.runs.decide(caller, run.run_id, approval_id, verdict)
                assert refusal.value.reason is ErrorReason.NOT_FOUND
        assert not (await shop.so_far(run)).of(ApprovalResolved)


async def test_the_same_decision_twice_is_fine_and_another_one_a_conflict(storage: Storage) -> None:
    gate, till = Gate(is_open=False), Till()

    async def script(work: Work) -> FinalResponse:
        await till.script(work)
        await gate.passage()
        return FinalResponse(work.message_id, work.emitter.state.text)

    async with till.shop(storage) as shop:
        shop.supervisor.scripts["pay"] = script
        run = await shop.accept("pay")
        (question,) = await asked(shop, run)

        async def check(*conflicting: Verdict) -> None:
            again = await shop.runs.decide(ANN, run.run_id, question.approval_id, edit(amount=3))
            assert again is ApprovalDecision.EDITED
            for verdict in conflicting:
                with pytest.raises(ApexError, match="edited") as refusal:
                    await shop.runs.decide(ANN, run.run_id, question.approval_id, verdict)
                assert refusal.value.reason is ErrorReason.RUN_CONFLICT

        await decide(shop, run, edit(amount=3))
        await gate.reached()
        await check(APPROVE, REJECT, edit(amount=4), edit())
        gate.open()
        await shop.told(run)
        await check(APPROVE, edit(amount=4))
    assert [args.amount for args in till.paid] == [3]


async def test_of_two_processes_that_decide_at_once_one_is_heard(storage: Storage) -> None:
    till = Till()
    async with till.shop(storage) as one, till.shop(storage, alone=False, worker_id="other") as two:
        run = await one.accept("pay")
        (question,) = await asked(one, run)
        verdicts = [(one, APPROVE), (two, REJECT)] * 3
        answers = await asyncio.gather(
            *(shop.runs.decide(ANN, run.run_id, question.approval_id, verdict) for shop, verdict in verdicts),
            return_exceptions=True,
        )
        told = await one.told(run)
    (resolved,) = told.of(ApprovalResolved)
    for (_, verdict), heard in zip(verdicts, answers, strict=True):
        if verdict.decision is resolved.decision:
            assert heard is resolved.decision
        else:
            assert isinstance(heard, ApexError)
            assert heard.reason is ErrorReason.RUN_CONFLICT
    assert len(till.paid) == (resolved.decision is ApprovalDecision.APPROVED)


async def test_questions_of_one_response_are_asked_together_and_all_must_be_answered(storage: Storage) -> None:
    till = Till(calls=[{"amount": 1}, {"amount": 2}, {"amount": 3}])
    async with till.shop(storage) as shop:
        run = await shop.accept("pay")
        await asked(shop, run, 3)
        await decide(shop, run, REJECT, 1)
        await decide(shop, run, APPROVE, 2)
        assert (await shop.now(run)).status is RunStatus.WAITING_APPROVAL
        await decide(shop, run, edit(amount=9), 0)
        told = await shop.told(run)
    assert sorted(args.amount for args in till.paid) == [3, 9]
    statuses = [outcome.status for outcome in till.outcomes]
    assert statuses == [ToolStatus.SUCCESS, ToolStatus.DENIED, ToolStatus.SUCCESS]
    assert len(told.of(ApprovalRequested)) == 3


async def test_a_watcher_sees_each_answer_at_once(memory: MemoryStorage) -> None:
    # With nobody who looks at the log by itself.
    async with Till(calls=[{"amount": 1}, {"amount": 2}]).shop(memory, broadcast_poll_ms=3_600_000) as shop:
        run = await shop.accept("pay")
        await asked(shop, run, 2)
        seen = (await shop.now(run)).last_seq
        async with await shop.broadcast.watch(ANN, run.run_id, seen) as watch, asyncio.timeout(TIMEOUT_S):
            await decide(shop, run, APPROVE, 0)
            assert [event.seq for event in await anext(watch)] == [seen + 1]
        await decide(shop, run, APPROVE, 1)


async def beside(storage: Storage, gate: Gate, act: Callable[[Workshop, RunRecord], Awaitable[None]]) -> Told:
    """Return what a run tells that looks something up while it asks; `act` begins when both are under way."""
    till = Till()

    async def look(_: ToolContext) -> JsonObject:
        await gate.passage()
        return {"rows": 3}

    async def script(work: Work) -> FinalResponse:
        await think(work)
        names = frozenset({"pay", "look"})
        calls = [ToolCall("a", "pay", {}), ToolCall("b", "look", {})]
        await asyncio.gather(*(work.dispatcher.call("data", STEP, call, names) for call in calls))
        return await answer(work)

    async with Workshop(storage, tools=[till.tool(), a_tool("look", look)], settle_ms=0) as shop:
        shop.supervisor.scripts["both"] = script
        run = await shop.accept("both")
        await gate.reached()
        await act(shop, run)
        return await shop.told(run)


async def test_a_call_beside_the_question_ends_first(storage: Storage) -> None:
    gate = Gate(is_open=False)

    async def act(shop: Workshop, run: RunRecord) -> None:
        assert (await shop.now(run)).status is RunStatus.RUNNING
        gate.open()
        await decide(shop, run)

    told = await beside(storage, gate, act)
    assert gate.arrivals == 1
    look, pay = told.of(ToolCompleted)
    assert (look.tool_name, pay.tool_name) == ("look", "pay")


async def test_a_decision_that_comes_while_other_calls_are_at_work_can_be_made_again(storage: Storage) -> None:
    gate = Gate(is_open=False)

    async def act(shop: Workshop, run: RunRecord) -> None:
        (question,) = (await shop.so_far(run)).of(ApprovalRequested)
        with pytest.raises(ApexError, match="at work") as refusal:
            await shop.runs.decide(ANN, run.run_id, question.approval_id, APPROVE)
        assert refusal.value.reason is ErrorReason.RUN_CONFLICT
        assert refusal.value.retry_after_ms is not None
        gate.open()
        await decide(shop, run)

    assert len((await beside(storage, gate, act)).of(ApprovalResolved)) == 1


async def test_a_decision_waits_for_the_run_to_come_to_rest(memory: MemoryStorage) -> None:
    till = Till()
    async with till.shop(memory) as shop:
        shop.storage.gates["wait"].close()
        run = await shop.accept("pay")
        await shop.storage.gates["wait"].reached()
        (question,) = (await shop.so_far(run)).of(ApprovalRequested)
        deciding = asyncio.create_task(shop.runs.decide(ANN, run.run_id, question.approval_id, APPROVE))
        reads = shop.storage.gates["get"].arrivals
        await shop.storage.gates["get"].reached(reads + 2)
        shop.storage.gates["wait"].open()
        assert await deciding is ApprovalDecision.APPROVED
        await shop.told(run)
    assert len(till.paid) == 1


async def test_a_worker_that_dies_before_it_lets_go_asks_nobody_twice(storage: Storage) -> None:
    till = Till()
    async with till.shop(storage) as first:
        first.storage.gates["wait"].close()
        run = await first.accept("pay")
        await first.storage.gates["wait"].reached()
        await first.crash()
    async with till.shop(storage) as second:
        await decide(second, run)
        told = await second.told(run)
    assert len(told.of(ApprovalRequested)) == len(till.paid) == 1
    assert [body.stage for body in told.of(AgentProgress)] == [ProgressStage.RESUMED]
    # The worker that went on after the decision took nothing over.
    assert sorted(set(told.attempts)) == [1, 2]


async def test_waiting_counts_neither_as_a_lost_worker_nor_against_the_time_of_the_run(storage: Storage) -> None:
    till = Till()

    async def script(work: Work) -> FinalResponse:
        await think(work)
        for number in range(MAX_CLAIMS + 2):
            call = ToolCall(f"{number}", "pay", {})
            await work.dispatcher.call("data", STEP, call, frozenset({"pay"}))
        return await answer(work)

    @dataclass
    class Hasty(SystemClock):
        """The real clock, an hour further on with each decision."""

        hours: int = 0

        def now(self) -> datetime:
            return super().now() + timedelta(hours=self.hours)

    clock = Hasty()
    async with till.shop(storage, clock=clock, approval_timeout_ms=1_800_000, run_timeout_ms=60_000) as shop:
        shop.supervisor.scripts["pay"] = script
        run = await shop.accept("pay")
        for place in range(MAX_CLAIMS + 2):
            await asked(shop, run, place + 1)
            clock.hours += 1
            await decide(shop, run, place=place)
        completed = (await shop.told(run)).of(AgentCompleted)[0]
    assert len(till.paid) == MAX_CLAIMS + 2
    assert completed.execution_time_ms < 60_000


async def test_work_before_and_after_the_wait_counts(memory: MemoryStorage) -> None:
    async with Till().shop(memory, run_timeout_ms=60_000) as first:
        run = await first.accept("pay")
        await decide(first, run, REJECT)
        before = (await first.told(run)).of(AgentCompleted)[0].execution_time_ms

    @dataclass
    class Slow(SystemClock):
        """The real clock, which is two minutes on as soon as somebody has thought."""

        minutes: int = 0

        def now(self) -> datetime:
            return super().now() + timedelta(minutes=self.minutes)

    clock, till = Slow(), Till()

    async def script(work: Work) -> FinalResponse:
        await think(work)
        clock.minutes = 2
        return await till.script(work)

    async with till.shop(memory, clock=clock, run_timeout_ms=60_000) as second:
        second.supervisor.scripts["pay"] = script
        run = await second.accept("pay")
        await decide(second, run)
        error = (await second.told(run)).of(AgentError)[0]
    assert before < 60_000 < error.execution_time_ms
    assert error.reason is ErrorReason.DEADLINE_EXCEEDED


async def test_a_waiting_run_is_cancelled_at_once(storage: Storage) -> None:
    async with Till().shop(storage, slots=1) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        cancelled = await shop.runs.cancel(ANN, run_id=run.run_id)
        told = await shop.told(run)
    assert cancelled.status in {RunStatus.CANCELLED, RunStatus.QUEUED}
    assert told.of(AgentCompleted)[0].status is CompletionStatus.CANCELLED
    assert told.of(ApprovalResolved)[0].decision is ApprovalDecision.CANCELLED


@pytest.mark.parametrize("conflict", [ThreadConflict.INTERRUPT, ThreadConflict.ROLLBACK])
async def test_a_newer_message_takes_the_place_of_a_waiting_run(storage: Storage, conflict: ThreadConflict) -> None:
    async with Till().shop(storage) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        newer = await shop.accept("hello", thread_id=run.thread_id, conflict=conflict)
        assert (await shop.told(newer)).of(FinalResponse)
        told = await shop.told(run)
    assert told.of(ApprovalResolved)[0].decision is ApprovalDecision.CANCELLED


async def test_the_next_message_of_the_thread_waits_for_the_decision(storage: Storage) -> None:
    async with Till().shop(storage) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        newer = await shop.accept("hello", thread_id=run.thread_id)
        assert (await shop.now(newer)).status is RunStatus.QUEUED
        await decide(shop, run)
        assert (await shop.told(newer)).of(FinalResponse)


async def test_a_thread_with_a_waiting_run_can_be_deleted(storage: Storage) -> None:
    async with Till().shop(storage) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        await shop.threads.delete(ANN, run.thread_id)
        with pytest.raises(ApexError) as refusal:
            await shop.runs.get(ANN, run.run_id)
        assert refusal.value.reason is ErrorReason.NOT_FOUND


async def test_a_cancellation_while_the_run_begins_to_wait_is_not_lost(storage: Storage) -> None:
    async with Till().shop(storage) as shop:
        shop.storage.gates["wait"].close()
        run = await shop.accept("pay")
        await shop.storage.gates["wait"].reached()
        await shop.runs.cancel(ANN, run_id=run.run_id)
        shop.storage.gates["wait"].open()
        assert (await shop.told(run)).of(AgentCompleted)[0].status is CompletionStatus.CANCELLED


async def test_a_process_stops_while_its_runs_wait(storage: Storage) -> None:
    async with Till().shop(storage) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        async with asyncio.timeout(TIMEOUT_S):
            await shop.stop(grace_ms=10_000)
        assert (await shop.now(run)).status is RunStatus.WAITING_APPROVAL


async def calls_without_question(
    storage: Storage, tool: Tool[BaseModel], args: JsonObject, *, strict: bool = False
) -> list[ToolOutcome]:
    """Return the outcomes of a call about which nobody may be asked."""
    outcomes: list[ToolOutcome] = []

    async def script(work: Work) -> FinalResponse:
        outcomes.append(
            await work.dispatcher.call("data", STEP, ToolCall("a", tool.name, args), frozenset({tool.name}))
        )
        return await answer(work)

    async with Workshop(storage, tools=[tool]) as shop:
        shop.supervisor.scripts["go"] = script
        command = RunCommand("go", settings=RunSettings(require_approval=strict))
        run = (await shop.runs.accept(ANN, command)).run
        told = await shop.told(run)
        assert not told.of(ApprovalRequested)
        assert len(told.of(ToolExecuting)) == 1
    return outcomes


@pytest.mark.parametrize(
    ("scopes", "args", "status"),
    [
        (frozenset({"pay"}), {}, ToolStatus.DENIED),
        (frozenset(), {"amount": 101}, ToolStatus.ERROR),
        (frozenset(), {"api_key": "x" * MAX_QUESTION_BYTES}, ToolStatus.ERROR),
    ],
    ids=["not permitted", "wrong arguments", "more than can be shown"],
)
async def test_what_cannot_run_is_answered_before_anybody_is_asked(
    memory: MemoryStorage, scopes: frozenset[str], args: JsonObject, status: ToolStatus
) -> None:
    (outcome,) = await calls_without_question(memory, Till().tool(scopes=scopes), args)
    assert outcome.status is status
    assert outcome.error


async def test_arguments_that_just_fit_are_asked_about(memory: MemoryStorage) -> None:
    till = Till(calls=[{"api_key": "x" * (MAX_QUESTION_BYTES - len('{"api_key":""}'))}])
    told = await played(memory, till, APPROVE)
    assert told.of(ToolCompleted)[0].status is ToolStatus.SUCCESS


async def test_a_lookup_needs_nobody_even_where_a_run_asks_before_each_change(memory: MemoryStorage) -> None:
    (outcome,) = await calls_without_question(memory, Till(Effect.READ_ONLY).tool(), {}, strict=True)
    assert outcome.status is ToolStatus.SUCCESS


async def test_a_run_can_ask_before_each_change(memory: MemoryStorage) -> None:
    till = Till(Effect.IDEMPOTENT)
    async with till.shop(memory) as shop:
        command = RunCommand("pay", settings=RunSettings(require_approval=True))
        run = (await shop.runs.accept(ANN, command)).run
        await decide(shop, run)
        await shop.told(run)
    assert len(till.paid) == 1


async def test_a_thought_comes_before_the_first_question(memory: MemoryStorage) -> None:
    till = Till()

    async def script(work: Work) -> FinalResponse:
        await work.dispatcher.call("data", STEP, ToolCall("a", "pay", {}), frozenset({"pay"}))
        return await answer(work)

    async with till.shop(memory) as shop:
        shop.supervisor.scripts["pay"] = script
        run = await shop.accept("pay")
        await decide(shop, run, REJECT)
        kinds = (await shop.told(run)).kinds()
    assert kinds[1:3] == [AgentThinking.__name__, ApprovalRequested.__name__]


def a_call(effect: Effect, needs: Callable[[NoArgs], str] | None = None) -> Tool[BaseModel]:
    async def run(_: ToolContext, __: BaseModel) -> ToolOutput:
        return ToolOutput("", {})

    return Tool("do", "Does it.", NoArgs, effect, 1_000, run, needs_approval=lambda _: needs(NoArgs()) if needs else "")


def broken(_: NoArgs) -> str:
    raise LookupError(SECRET)


@pytest.mark.parametrize(
    ("effect", "needs", "strict", "part"),
    [
        (Effect.READ_ONLY, None, False, ""),
        (Effect.READ_ONLY, None, True, ""),
        (Effect.IDEMPOTENT, None, False, ""),
        (Effect.IDEMPOTENT, None, True, "before each change"),
        (Effect.UNSAFE, None, False, "cannot be undone"),
        (Effect.UNSAFE, None, True, "cannot be undone"),
        (Effect.READ_ONLY, lambda _: "It is much.", False, "It is much."),
        (Effect.UNSAFE, lambda _: "It is much.", True, "It is much."),
        (Effect.READ_ONLY, broken, False, "could not tell"),
    ],
    ids=[
        "read",
        "read strictly",
        "repeat",
        "repeat strictly",
        "unsafe",
        "unsafe strictly",
        "own",
        "own first",
        "broken",
    ],
)
def test_the_rules(
    effect: Effect, needs: Callable[[NoArgs], str] | None, *, strict: bool, part: str, logs: list[EventDict]
) -> None:
    reason = reason_to_ask(a_call(effect, needs), NoArgs(), RunSettings(require_approval=strict))
    assert bool(reason) == bool(part)
    assert part in reason
    assert SECRET not in reason
    assert bool(logs) == (needs is broken)


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_reason_has_a_bound(surplus: int) -> None:
    def talk(_: NoArgs) -> str:
        return "x" * (MAX_REASON_CHARACTERS + surplus)

    reason = reason_to_ask(a_call(Effect.READ_ONLY, talk), NoArgs(), RunSettings())
    assert len(reason) == MAX_REASON_CHARACTERS


def test_a_decision_is_about_one_call_with_its_arguments() -> None:
    ids = {
        approval_id_of(run, call, tool, args)
        for run in ("run-1", "run-2")
        for call in ("1-data.a", "1-data.b")
        for tool in ("pay", "put")
        for args in ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {})
    }
    assert len(ids) == 24
    one = approval_id_of("run-1", "1-data.a", "pay", {"a": 1, "b": 2})
    assert one == approval_id_of("run-1", "1-data.a", "pay", {"b": 2, "a": 1})
    assert one in ids


async def test_other_arguments_under_the_same_id_are_another_question(memory: MemoryStorage) -> None:
    till = Till()
    async with till.shop(memory) as first:
        run = await first.accept("pay")
        await asked(first, run)
        await first.crash()
    # Another worker's model wants something else, as one may whose checkpoint is of another version.
    other = Till(calls=[{"amount": 100}])
    async with other.shop(memory) as second:
        await decide(second, run, APPROVE, 0)
        await decide(second, run, REJECT, 1)
        told = await second.told(run)
    assert [body.tool_args for body in told.of(ApprovalRequested)] == [{}, {"amount": 100}]
    assert not other.paid


async def test_a_waiting_run_is_open_to_its_user(memory: MemoryStorage) -> None:
    async with Till().shop(memory) as shop:
        run = await shop.accept("pay")
        await asked(shop, run)
        assert [one.run_id for one in await shop.runs.open_runs(ANN)] == [run.run_id]
        assert not await shop.runs.open_runs(user("eve"))


async def test_a_log_that_nobody_can_read_keeps_no_other_run_waiting(
    memory: MemoryStorage, logs: list[EventDict]
) -> None:
    till = Till()
    async with till.shop(memory, approval_timeout_ms=0, beat_interval_ms=60_000) as first:
        broken_run, run = await first.accept("pay"), await first.accept("pay")
        for one in broken_run, run:
            await asked(first, one)
        await first.crash()
    log = memory.state.events[broken_run.run_id]
    log[-1] = type(log[-1])(broken_run.run_id, log[-1].seq, b"\xff\xff")
    async with till.shop(memory) as second:
        assert (await second.told(run)).of(ApprovalResolved)[0].decision is ApprovalDecision.EXPIRED
        await eventually(lambda: "expiry_failed" in {entry["event"] for entry in logs}, what="it is noted")

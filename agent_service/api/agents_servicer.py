"""AgentService: messages, runs and their events."""

import asyncio
from dataclasses import dataclass

import structlog

from agent_service.api.call import Call, Lifetimes, not_there_yet
from agent_service.api.metrics import ApiMetrics
from agent_service.api.paging import page_size
from agent_service.api.rates import MessageRates
from agent_service.api.wire_commands import command_to_domain, verdict_to_domain
from agent_service.api.wire_events import DECISIONS
from agent_service.api.wire_records import RUN_STATUSES, agent_to_wire, run_to_wire, tool_to_wire
from agent_service.engine.broadcast import Broadcast
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError
from agent_service.engine.registry import Registry
from agent_service.engine.runs import Runs
from generated.apex.agent.v1 import agent_pb2 as pb
from storage.records import Accepted


@dataclass(frozen=True, slots=True)
class AgentServicer:
    """The methods carry the names of the contract; its comments say what they do."""

    runs: Runs
    broadcast: Broadcast
    registry: Registry
    rates: MessageRates
    lifetimes: Lifetimes
    metrics: ApiMetrics

    async def RunAgent(self, request: pb.RunAgentRequest, call: Call) -> None:
        with self.lifetimes.place(call.user):  # before the message is saved: later there would be no way to say no
            await self._run_agent(request, call)

    async def _run_agent(self, request: pb.RunAgentRequest, call: Call) -> None:
        accepting = asyncio.create_task(self._accept(request, call))
        accepting.add_done_callback(_retrieve)
        try:
            # To its end also when the caller leaves meanwhile: only then it is known which run that was.
            accepted = await asyncio.shield(accepting)
            run = accepted.run
            call.bind(run_id=run.run_id, thread_id=run.thread_id)
            await call.begin(
                (
                    ("apex-run-id", run.run_id),
                    ("apex-thread-id", run.thread_id),
                    ("apex-already-existed", "true" if accepted.already_existed else "false"),
                )
            )
            await self._stream(call, run.run_id, 0)
        except asyncio.CancelledError:
            if request.on_disconnect == pb.ON_DISCONNECT_CANCEL:
                await asyncio.shield(self._cancel_left_run(call.user, accepting))
            raise

    async def StartRun(self, request: pb.StartRunRequest, call: Call) -> pb.StartRunResponse:
        accepted = await self._accept(request.run, call)
        call.bind(run_id=accepted.run.run_id, thread_id=accepted.run.thread_id)
        return pb.StartRunResponse(
            run_id=accepted.run.run_id,
            thread_id=accepted.run.thread_id,
            user_message_id=accepted.run.user_message_id,
            already_existed=accepted.already_existed,
        )

    async def WatchRun(self, request: pb.WatchRunRequest, call: Call) -> None:
        call.bind(run_id=request.run_id)
        with self.lifetimes.place(call.user):
            await self._stream(call, request.run_id.lower(), request.after_seq)

    async def WatchThread(self, request: pb.WatchThreadRequest, call: Call) -> None:
        raise not_there_yet("WatchThread")

    async def CancelRun(self, request: pb.CancelRunRequest, call: Call) -> pb.CancelRunResponse:
        run = await self.runs.cancel(
            call.user,
            run_id=request.run_id.lower(),
            client_message_id=request.client_message_id.lower(),
            reason=request.reason,
        )
        call.bind(run_id=run.run_id, thread_id=run.thread_id)
        return pb.CancelRunResponse(run=run_to_wire(run))

    async def ResolveApproval(self, request: pb.ResolveApprovalRequest, call: Call) -> pb.ResolveApprovalResponse:
        call.bind(run_id=request.run_id)
        verdict = verdict_to_domain(request)
        decision = await self.runs.decide(call.user, request.run_id.lower(), request.approval_id.lower(), verdict)
        return pb.ResolveApprovalResponse(decision=DECISIONS.to_wire(decision))

    async def GetRun(self, request: pb.GetRunRequest, call: Call) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=run_to_wire(await self.runs.get(call.user, request.run_id.lower())))

    async def ListRuns(self, request: pb.ListRunsRequest, call: Call) -> pb.ListRunsResponse:
        page = await self.runs.list(
            call.user,
            thread_id=request.thread_id.lower() or None,
            statuses=[RUN_STATUSES.to_domain(status) for status in request.statuses],
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return pb.ListRunsResponse(runs=[run_to_wire(run) for run in page.items], next_page_token=page.next_page_token)

    async def ListAgents(self, request: pb.ListAgentsRequest, call: Call) -> pb.ListAgentsResponse:
        tools = sorted(self.registry.tools.values(), key=lambda tool: tool.name)
        return pb.ListAgentsResponse(
            agents=[agent_to_wire(agent) for agent in self.registry.agents.values()],
            tools=[tool_to_wire(tool) for tool in tools],
        )

    async def _accept(self, request: pb.RunAgentRequest, call: Call) -> Accepted:
        command = command_to_domain(request)
        await self.rates.count(call.user.user_id)
        return await self.runs.accept(call.user, command)

    async def _stream(self, call: Call, run_id: str, after_seq: int) -> None:
        """Send the run's events to the terminal one. An error says the last seq that was sent."""
        sent_seq = after_seq
        await call.begin()
        try:
            async with (
                self.lifetimes.limit(call.user),
                await self.broadcast.watch(call.user, run_id, after_seq) as watch,
            ):
                async for batch in watch:
                    for event in batch:
                        await call.send(event.data)
                        sent_seq = event.seq
                    self.metrics.events.inc(len(batch))
        except ApexError as error:
            error.last_seq = sent_seq if error.last_seq is None else error.last_seq
            raise

    async def _cancel_left_run(self, user: UserExecutionContext, accepting: asyncio.Task[Accepted]) -> None:
        """End the run that a caller has made who went away, perhaps before it was told of it."""
        try:
            accepted = await accepting
            if not accepted.already_existed:
                await self.runs.cancel(user, run_id=accepted.run.run_id, reason="The caller went away.")
        except ApexError as error:
            structlog.get_logger("apex.grpc").warning("cancel_on_disconnect_failed", error=error.message)


def _retrieve(accepting: asyncio.Task[Accepted]) -> None:
    """Take the error of an acceptance whose caller may have gone away."""
    if not accepting.cancelled():
        accepting.exception()

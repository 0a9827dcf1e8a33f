"""The terminal client: runs over gRPC, live steps, the answer as Markdown; goes on after a cut line."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
from google.protobuf import json_format
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from generated.apex.agent.v1 import agent_pb2, agent_pb2_grpc

RETRY_DELAYS_S: Final = (0.2, 0.5, 1, 2, 4, 4, 4, 4, 4)
"""Pauses before a cut stream is taken up again."""

CANCEL_TIMEOUT_S: Final = 5
"""How long to wait for the word that a run is asked to stop."""

TAIL_MARGIN: Final = 2
"""Lines of the screen that a growing answer leaves free."""

CHANNEL_OPTIONS: Final = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65_536),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class EventCall(Protocol):
    """A stream of events that can be cancelled."""

    def __aiter__(self) -> AsyncIterator[agent_pb2.AgentEvent]:
        """Iterate over the events."""
        ...

    def cancel(self) -> bool:
        """End the call."""
        ...


@dataclass(slots=True)
class Client:
    """Talks to the service with a user's token. `warn` is told why a stream pauses."""

    channel: grpc.aio.Channel
    token: str
    warn: Callable[[str], None]

    def run(self, request: agent_pb2.RunAgentRequest) -> AsyncIterator[agent_pb2.AgentEvent]:
        """Yield the events of a new run, each once, over as many connections as it takes.

        The request needs a `client_message_id`: a second call finds the run of the first by it.
        """
        stub = agent_pb2_grpc.AgentServiceStub(self.channel)
        return self._follow(lambda: stub.RunAgent(request, metadata=self._metadata()), 0)

    def replay(self, run_id: str, after_seq: int) -> AsyncIterator[agent_pb2.AgentEvent]:
        """Yield a run's events after the cursor, then live, to the end, each once."""
        return self._follow(lambda: self._watch(run_id, after_seq), after_seq)

    async def catalogue(self) -> agent_pb2.ListAgentsResponse:
        """Return the agents and tools of the service."""
        stub = agent_pb2_grpc.AgentServiceStub(self.channel)
        return await stub.ListAgents(agent_pb2.ListAgentsRequest(), metadata=self._metadata())

    async def _follow(self, begin: Callable[[], EventCall], last_seq: int) -> AsyncIterator[agent_pb2.AgentEvent]:
        run_id, failures = "", 0
        while True:
            call = self._watch(run_id, last_seq) if run_id else begin()
            try:
                async for event in call:
                    run_id, last_seq, failures = event.run_id, event.seq, 0
                    yield event
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or failures >= len(RETRY_DELAYS_S):
                    raise
                if not failures:
                    self.warn("The service does not answer. Trying again …")
                await asyncio.sleep(RETRY_DELAYS_S[failures])
                failures += 1
            else:
                return
            finally:
                call.cancel()

    async def cancel(self, client_message_id: str) -> None:
        """Ask a run to stop. Nothing happens if there is none, or nobody to ask."""
        stub = agent_pb2_grpc.AgentServiceStub(self.channel)
        request = agent_pb2.CancelRunRequest(client_message_id=client_message_id, reason="Stopped in the terminal.")
        with suppress(grpc.aio.AioRpcError):
            await stub.CancelRun(request, metadata=self._metadata(), timeout=CANCEL_TIMEOUT_S)

    def _watch(self, run_id: str, after_seq: int) -> "EventCall":
        stub = agent_pb2_grpc.AgentServiceStub(self.channel)
        watch = agent_pb2.WatchRunRequest(run_id=run_id, after_seq=after_seq)
        return stub.WatchRun(watch, metadata=self._metadata())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


def catalogue_lines(catalogue: agent_pb2.ListAgentsResponse) -> Iterator[str]:
    """Yield what to print of the agents and tools of a service."""
    for agent in catalogue.agents:
        yield f"{agent.name}: {agent.description}"
        yield f"  tools: {', '.join(agent.tool_names) or 'none'}"
    for tool in catalogue.tools:
        effect = agent_pb2.ToolEffect.Name(tool.effect).removeprefix("TOOL_EFFECT_").lower()
        scopes = f", needs {' '.join(tool.scopes)}" if tool.scopes else ""
        yield f"{tool.name} ({effect}, {tool.timeout_ms / 1000:g} s{scopes}): {tool.description.partition('. ')[0]}"


class Screen:
    """Shows events: as lines of JSON, or as steps on standard error and the answer on standard output.

    The answer is laid out on a terminal, and plain Markdown where it is sent somewhere else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._steps = Console(stderr=True, highlight=False)
        self._answer = Console()
        self._text = ""
        self._live: Live | None = None
        self.succeeded = False

    def show(self, event: agent_pb2.AgentEvent) -> None:
        """Show one event."""
        self.succeeded = (
            event.WhichOneof("event") == "agent_completed"
            and event.agent_completed.status == agent_pb2.COMPLETION_STATUS_SUCCESS
        )
        if self._as_json:
            text = json_format.MessageToJson(event, preserving_proto_field_name=True, indent=None)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            return
        self._show_step(event)

    def _show_step(self, event: agent_pb2.AgentEvent) -> None:
        match event.WhichOneof("event"):
            case "partial_result":
                self._stream(self._text + event.partial_result.text)
            case "final_response":
                self._finish(event.final_response.content)
            case "agent_progress" if event.agent_progress.discard_partial:
                self._stream("")
            case "tool_completed":
                self._show_tool_end(event.tool_completed)
            case "agent_completed":
                self._show_end(event)
            case "agent_error":
                self._show_error(event.agent_error)
            case _:
                self._show_line(event)

    def _show_line(self, event: agent_pb2.AgentEvent) -> None:
        match event.WhichOneof("event"):
            case "agent_started":
                self._line("●", event.agent_started.message, "bold")
            case "agent_thinking":
                self._line("·", event.agent_thinking.thought, "italic dim")
            case "agent_handoff":
                self._line("→", f"{event.agent_handoff.to_agent}: {event.agent_handoff.reason}", "cyan")
            case "agent_progress" if event.agent_progress.message:
                self._line(" ", _progress(event.agent_progress), "dim")
            case "tool_executing":
                self._line("▸", f"{event.tool_executing.tool_name}: {event.tool_executing.description}", "")
            case "artifact_created":
                self._line("◆", f"{event.artifact_created.name} ({event.artifact_created.artifact_id})", "green")
            case _:
                pass

    def _stream(self, text: str) -> None:
        """Show the answer so far, where the terminal can redraw it."""
        self._text = text
        if not self._answer.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._answer, refresh_per_second=12, transient=True)
            self._live.start()
        self._live.update(Tail(text))

    def _finish(self, content: str) -> None:
        """Leave the whole answer on the screen."""
        if not self._answer.is_terminal:
            sys.stdout.write(f"{content.rstrip()}\n")
            sys.stdout.flush()
        else:
            self.close()
            self._answer.print(Markdown(content))

    def warn(self, text: str) -> None:
        """Show something that is no event."""
        self._line("!", text, "yellow")

    def close(self) -> None:
        """Stop redrawing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show_end(self, event: agent_pb2.AgentEvent) -> None:
        usage, ms = event.agent_completed.usage, event.agent_completed.execution_time_ms
        calls = "1 tool call" if usage.tool_calls == 1 else f"{usage.tool_calls} tool calls"
        line = f"{event.agent_completed.message} {ms / 1000:.1f} s, {calls}"
        self._line("■", f"{line}, ${usage.cost_usd:.4f}. Run {event.run_id}", "dim")

    def _show_error(self, error: agent_pb2.AgentError) -> None:
        self._line("✗", error.message, "bold red")
        for suggestion in error.recovery_suggestions:
            self._line(" ", suggestion, "red")

    def _show_tool_end(self, completed: agent_pb2.ToolCompleted) -> None:
        if completed.status == agent_pb2.TOOL_STATUS_SUCCESS:
            self._line("✓", f"{completed.result_summary} ({completed.execution_time_ms} ms)", "green")
        else:
            self._line("✗", completed.error, "yellow")

    def _line(self, mark: str, text: str, style: str) -> None:
        self._steps.print(Text(f"{mark} {text}", style=style), soft_wrap=not self._steps.is_terminal)


class Tail:
    """The end of a growing text, as much as fits: what has left the screen at its top could not be redrawn."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Markdown(self._text), options, pad=False)
        for line in lines[-max(1, console.height - TAIL_MARGIN) :]:
            yield from line
            yield Segment.line()


def _progress(progress: agent_pb2.AgentProgress) -> str:
    """Return a line about how far a run is."""
    match progress.stage:
        case agent_pb2.PROGRESS_STAGE_PLANNED:
            return f"Plan: {', then '.join(step.agent_name for step in progress.planned_steps) or progress.message}"
        case agent_pb2.PROGRESS_STAGE_STEP:
            return f"Step {progress.step} of {progress.total_steps}: {progress.message}"
        case _:
            return progress.message


async def dev_token(channel: grpc.aio.Channel, user_id: str) -> str:
    """Return a development token. The service refuses outside development and test."""
    stub = agent_pb2_grpc.SessionServiceStub(channel)
    response = await stub.CreateDevToken(agent_pb2.CreateDevTokenRequest(user_id=user_id))
    return response.token

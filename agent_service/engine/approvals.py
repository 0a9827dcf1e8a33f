"""Decisions of people about tool calls: which calls need one, and how a waiting run gets it.

A run that waits has no worker. Whoever decides (a person through the API, or time) writes the answer into the log and
puts the run back into the queue, in one transaction; of racing ones storage takes one. Nothing that a model or the data
says has a part in it.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final

import msgspec
import structlog
from pydantic import BaseModel, ValidationError

from agent_service.engine.broadcast import Broadcast
from agent_service.engine.commands import RunSettings
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason, FencedError, Violation
from agent_service.engine.events import ApprovalDecision, ApprovalResolved, Effect, Event, JsonObject
from agent_service.engine.folding import fold
from agent_service.engine.ports import Clock, EventCodec
from agent_service.engine.run import ApprovalState, RunState
from agent_service.engine.tool import Tool
from agent_service.engine.translation import invalid, translated
from storage.errors import StorageUnavailableError
from storage.interfaces import Storage
from storage.records import Resolution, RunRecord, RunStatus, StoredEvent

MAX_REASON_CHARACTERS: Final = 2_000
"""Of why a person must decide, in an event."""

SETTLE_MS: Final = 5_000
"""How long a decision waits for a run whose other calls are still at work."""

SETTLE_PAUSES_MS: Final = (20, 40, 80, 160, 320)
"""Pauses between its looks; the last one again and again."""

MAX_LAPSED: Final = 50
"""Runs that one look at what has lapsed takes up."""


def reason_to_ask(tool: Tool[BaseModel], args: BaseModel, settings: RunSettings) -> str:
    """Return why a person must decide about a call with these checked arguments; empty: nobody must.

    These are all the rules: what the tool itself says about its arguments; every UNSAFE tool; and where the run asks
    for it, every tool that is not READ_ONLY. A tool that cannot say is asked about.
    """
    reason = _tools_own_reason(tool, args)
    if not reason and tool.effect is Effect.UNSAFE:
        reason = f"What {tool.name} does cannot be undone or repeated safely."
    if not reason and settings.require_approval and tool.effect is not Effect.READ_ONLY:
        reason = f"{tool.name} changes something, and this run asks before each change."
    return reason[:MAX_REASON_CHARACTERS]


def _tools_own_reason(tool: Tool[BaseModel], args: BaseModel) -> str:
    if tool.needs_approval is None:
        return ""
    try:
        return tool.needs_approval(args)
    except Exception:  # noqa: BLE001 - whatever it is, a person decides
        structlog.get_logger("apex.approvals").exception("needs_approval_failed", tool=tool.name)
        return f"{tool.name} could not tell whether this call is harmless."


def approval_id_of(run_id: str, tool_call_id: str, tool_name: str, args: JsonObject) -> str:
    """Return the id of the question about exactly this call (a UUID of version 8): the same after a restart.

    A decision holds for the arguments that it was made about, whatever a model asks for later under the same call id.
    """
    call = msgspec.json.encode((run_id, tool_call_id, tool_name, args), order="deterministic")
    number = int.from_bytes(hashlib.sha256(call).digest()[:16])
    return str(uuid.UUID(int=number & ~(0xF << 76) & ~(0b11 << 62) | (8 << 76) | (0b10 << 62)))


def encode_args(args: JsonObject) -> bytes:
    """Return edited arguments as storage keeps them: equal ones as equal bytes."""
    return msgspec.json.encode(args, order="deterministic")


def decode_args(data: bytes) -> JsonObject:
    """Return what `encode_args` was given."""
    args: JsonObject = msgspec.json.decode(data, type=dict)
    return args


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says about a call. `edited_args` belong to EDITED, and only to it."""

    decision: ApprovalDecision
    comment: str = ""
    edited_args: JsonObject | None = None


class Approvals:
    """Takes the answers to the questions of waiting runs."""

    def __init__(
        self,
        storage: Storage,
        broadcast: Broadcast,
        tools: Mapping[str, Tool[BaseModel]],
        codec: EventCodec,
        clock: Clock,
        *,
        settle_ms: int = SETTLE_MS,
    ) -> None:
        self._storage = storage
        self._broadcast = broadcast
        self._tools = tools
        self._codec = codec
        self._clock = clock
        self._settle_ms = settle_ms
        self._logger = structlog.get_logger("apex.approvals")

    async def resolve(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        """Decide about a call of the user's run and return the decision that holds.

        The same decision again is fine. Every error is an `ApexError`: NOT_FOUND for a question that nobody asked this
        user, INVALID_ARGUMENT for arguments that do not fit the tool, RUN_CONFLICT for a question that was answered in
        another way, or whose run does not come to rest.
        """
        with translated():
            give_up_ms = self._clock.monotonic_ms() + self._settle_ms
            for pause_ms in chain(SETTLE_PAUSES_MS, repeat(SETTLE_PAUSES_MS[-1])):
                run = await self._storage.runs.get(user.user_id, run_id)
                decision = await self._try(user, run, approval_id, verdict)
                if decision is not None:
                    return decision
                if self._clock.monotonic_ms() >= give_up_ms:
                    break
                await asyncio.sleep(pause_ms / 1000)
            text = "Other calls of this run are still at work. Decide again in a moment."
            raise ApexError(ErrorReason.RUN_CONFLICT, text, retry_after_ms=1_000)

    async def _try(
        self, user: UserExecutionContext, run: RunRecord, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision | None:
        """Return the decision that holds by now, None while the run does not wait or somebody else writes."""
        try:
            state = await fold(self._storage.events, self._codec, run)
        except FencedError:
            return None  # it was written to meanwhile
        approval = state.approvals.get(approval_id)
        if approval is None:
            raise ApexError(ErrorReason.NOT_FOUND, "There is no such approval.")
        if approval.resolved is not None:
            return await self._same(run, approval.resolved, verdict)
        self._check(approval, verdict)
        if run.status is not RunStatus.WAITING_APPROVAL:
            return None
        edited = {} if verdict.edited_args is None else {approval_id: encode_args(verdict.edited_args)}
        resolved = ApprovalResolved(approval_id, verdict.decision, user.user_id, verdict.comment)
        if await self._answer(run, state, {approval_id: resolved}, edited_args=edited):
            return verdict.decision
        # Somebody was faster, perhaps time itself.
        await self._expire(run)
        return None

    async def _same(self, run: RunRecord, resolved: ApprovalResolved, verdict: Verdict) -> ApprovalDecision:
        is_same = resolved.decision is verdict.decision
        if is_same and verdict.edited_args is not None:
            kept = await self._storage.runs.edited_args(run.user_id, run.run_id)
            is_same = kept.get(resolved.approval_id) == encode_args(verdict.edited_args)
        if is_same:
            return resolved.decision
        text = f"This was decided already, in another way: {resolved.decision.value}. That stays."
        raise ApexError(ErrorReason.RUN_CONFLICT, text)

    def _check(self, approval: ApprovalState, verdict: Verdict) -> None:
        """Raise `ApexError` for edited arguments that the tool would not take."""
        if verdict.edited_args is None:
            return
        tool = self._tools.get(approval.requested.tool_name)
        if tool is None:
            raise invalid("decision", f"There is no tool {approval.requested.tool_name} any more. Reject the call.")
        try:
            tool.args.model_validate(verdict.edited_args)
        except ValidationError as error:
            violations = tuple(
                Violation(_path("edited_args", item["loc"]), item["msg"])
                for item in error.errors(include_url=False, include_input=False)
            )
            first = violations[0]
            text = f"The arguments do not fit {tool.name}: {first.field}: {first.description}."
            raise ApexError(ErrorReason.INVALID_ARGUMENT, text, violations=violations) from None

    async def expire(self) -> bool:
        """Reject what nobody decided in time, as the database's clock sees it; tell whether there was any."""
        was_any = False
        for run in await self._storage.runs.lapsed(limit=MAX_LAPSED):
            try:
                was_any = await self._expire(run) or was_any
            except StorageUnavailableError:
                raise
            except Exception:
                # A log that this version cannot read must not keep the other runs waiting.
                self._logger.exception("expiry_failed", run_id=run.run_id)
        return was_any

    async def _expire(self, run: RunRecord) -> bool:
        try:
            state = await fold(self._storage.events, self._codec, run)
        except FencedError:
            return False
        ids = [approval.requested.approval_id for approval in state.open_approvals]
        answers = {approval_id: ApprovalResolved(approval_id, ApprovalDecision.EXPIRED) for approval_id in ids}
        return await self._answer(run, state, answers, lapsed=True)

    async def _answer(
        self,
        run: RunRecord,
        state: RunState,
        answers: Mapping[str, ApprovalResolved],
        *,
        lapsed: bool = False,
        edited_args: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Write answers to open questions, and tell the run's watchers. False when another answer was first."""
        now = self._clock.now()
        events = [
            self._stored(state.next(now, state.approvals[approval_id].agent_name, resolved))
            for approval_id, resolved in answers.items()
        ]
        resolution = Resolution(
            run_id=run.run_id,
            epoch=run.epoch,
            after_seq=run.last_seq,
            events=events,
            approval_ids=tuple(answers),
            goes_on=not state.open_approvals,
            lapsed=lapsed,
            edited_args=edited_args or {},
        )
        if not await self._storage.runs.resolve(run.user_id, resolution):
            return False
        self._logger.info("approvals_resolved", run_id=run.run_id, lapsed=lapsed, goes_on=resolution.goes_on)
        self._broadcast.publish(run.run_id, events)
        return True

    def _stored(self, event: Event) -> StoredEvent:
        return StoredEvent(event.run_id, event.seq, self._codec.encode(event))


def _path(field: str, steps: tuple[int | str, ...]) -> str:
    """Return a field's path as `a.b[0].c`."""
    return field + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)

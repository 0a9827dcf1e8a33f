"""The users of a simulation: what they do, and what they may rely on, whatever happens to the service."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, TypeVar

from agent_service.engine.commands import RunCommand, RunSettings
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import ApexError, ErrorReason
from storage.records import RunStatus, StoredEvent, ThreadConflict
from tests.simulation.bounds import MAX_WATCH_EVENTS, REPLAY_EVENTS
from tests.simulation.ledger import Account, Ledger
from tests.simulation.scripts import a_message
from tests.simulation.service import Connection, ConnectionLostError, Service
from tests.simulation.verdict import Verdict

T = TypeVar("T")

USERS: Final = ("ann", "bob", "eve")
PASSING: Final = frozenset({ErrorReason.STORAGE_UNAVAILABLE, ErrorReason.DRAINING})
TRIES: Final = 40
PROMPT: Final = timedelta(seconds=1)
LISTED: Final = 200


def caller(user_id: str) -> UserExecutionContext:
    """Return the verified caller."""
    return UserExecutionContext(user_id, frozenset(), "token", datetime(2100, 1, 1, tzinfo=UTC), "request")


@dataclass(slots=True, eq=False)
class Viewer:
    """Somebody who follows a run, and comes back with the last seq whenever the line breaks."""

    user_id: str
    run_id: str
    cursor: int
    pause_s: float
    connection: Connection | None = None
    since: datetime | None = None


@dataclass(slots=True)
class Clients:
    """All users. `pick` returns a service that is up, if any."""

    verdict: Verdict
    ledger: Ledger
    chance: Random
    kinds: Sequence[str]
    pick: Callable[[], Service | None]
    #: By user and key: the message that it was first used for.
    sent: dict[tuple[str, str], RunCommand] = field(default_factory=dict)
    answered: dict[tuple[str, str], str] = field(default_factory=dict)
    #: Keys that another message may have by now.
    taken_over: dict[tuple[str, str], None] = field(default_factory=dict)
    viewers: list[Viewer] = field(default_factory=list)
    busy: dict[asyncio.Task[None], None] = field(default_factory=dict)
    _count: int = 0

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Let somebody do something on their own."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.busy[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self.busy[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.verdict.fail(f"{task.get_name()}: {error!r}")

    # ---- Messages ----

    def send(self) -> None:
        """Send a new message."""
        user_id = self.chance.choice(USERS)
        threads = self._threads_of(user_id)
        thread_id = self.chance.choice(threads) if threads and self.chance.random() < 0.5 else ""
        self._count += 1
        key = f"key-{self._count}" if self.chance.random() < 0.8 else ""
        command = RunCommand(
            a_message(self.chance, self.kinds),
            thread_id=thread_id,
            client_message_id=key,
            conflict=self.chance.choice(list(ThreadConflict)),
            settings=RunSettings(timeout_ms=self.chance.choice([None, None, 2_000, 20_000])),
        )
        if key:
            self.sent[user_id, key] = command
        copies = 2 if key and self.chance.random() < 0.15 else 1
        for _ in range(copies):
            self.begin(
                self._send(user_id, command, follow=self.chance.random() < 0.7), f"{user_id} sends {command.content}"
            )

    def repeat(self) -> None:
        """Send an earlier message again, or another one under its key."""
        if not self.sent:
            return
        user_id, key = self.chance.choice(list(self.sent))
        command = self.sent[user_id, key]
        if self.chance.random() < 0.8:
            self.begin(self._send(user_id, command, follow=False), f"{user_id} repeats {key}")
        elif (user_id, key) in self.answered:
            self.begin(self._misuse(user_id, command), f"{user_id} misuses {key}")

    async def _send(self, user_id: str, command: RunCommand, *, follow: bool) -> None:
        for _ in range(TRIES):
            try:
                run = (await self._call(lambda service: service.runs.accept(caller(user_id), command))).run
            except ConnectionLostError:
                sure = False
            except ApexError as error:
                if error.reason not in PASSING:
                    self._check_refusal(error, user_id, command)
                    return
                sure = error.reason is ErrorReason.DRAINING
            else:
                self._check_answer(user_id, command, run.run_id)
                if follow:
                    self.watch(self.ledger.accounts[run.run_id], 0)
                return
            if not command.client_message_id and not sure:
                return  # it may have been accepted, and cannot be sent again
            await asyncio.sleep(self.chance.uniform(0.1, 3))

    def _check_answer(self, user_id: str, command: RunCommand, run_id: str) -> None:
        account = self.ledger.accounts.get(run_id)
        ours = account is not None and (account.run.user_id, account.content) == (user_id, command.content)
        self.verdict.require(ours, f"{command.content} of {user_id} was answered with {run_id}: {account}")
        if command.client_message_id:
            first = self.answered.setdefault((user_id, command.client_message_id), run_id)
            same = first == run_id or self.ledger.accounts[first].is_deleted
            self.verdict.require(same, f"{command.client_message_id} was answered with {first}, now with {run_id}")
            self.answered[user_id, command.client_message_id] = run_id

    def _check_refusal(self, error: ApexError, user_id: str, command: RunCommand) -> None:
        gone = command.thread_id != "" and all(one.is_deleted for one in self.ledger.of_thread(command.thread_id))
        allowed = {
            ErrorReason.TOO_MANY_RUNS: True,
            ErrorReason.RUN_CONFLICT: command.conflict is ThreadConflict.REJECT,
            ErrorReason.NOT_FOUND: gone,
            ErrorReason.INVALID_ARGUMENT: (user_id, command.client_message_id) in self.taken_over,
        }
        self.verdict.require(allowed.get(error.reason, False), f"{command} was refused: {error.reason} {error}")

    async def _misuse(self, user_id: str, command: RunCommand) -> None:
        other = RunCommand("talk/other", command.thread_id, command.client_message_id)
        run_id = self.answered[user_id, command.client_message_id]
        # Once its run is deleted, a key is free.
        self.taken_over[user_id, command.client_message_id] = None
        try:
            run = (await self._call(lambda service: service.runs.accept(caller(user_id), other))).run
        except (ApexError, ConnectionLostError):
            return
        self.verdict.require(
            self.ledger.accounts[run_id].is_deleted, f"another message got {run.run_id} of the same key"
        )

    # ---- Watching ----

    def watch(self, account: Account, cursor: int) -> None:
        """Follow a run from here on."""
        pause_s = self.chance.choice([0, 0, 0, 0.01, 0.5, 3])
        viewer = Viewer(account.run.user_id, account.run.run_id, cursor, pause_s)
        self.viewers.append(viewer)
        self.begin(self._follow(viewer), f"{viewer.user_id} watches {viewer.run_id} from {cursor}")

    def watch_some(self) -> None:
        """Follow some run, running or ended, from somewhere."""
        if account := self._some_run():
            self.watch(
                account, self.chance.choice([0, len(account.events), self.chance.randint(0, len(account.events))])
            )

    def disconnect(self) -> None:
        """Cut some viewer's line."""
        if open_now := [viewer.connection for viewer in self.viewers if viewer.connection is not None]:
            self.chance.choice(open_now).cut()

    async def _follow(self, viewer: Viewer) -> None:
        account = self.ledger.accounts[viewer.run_id]
        while True:
            if await self._watch_once(viewer, account):
                self.viewers.remove(viewer)
                return
            await asyncio.sleep(self.chance.choice([0, 0.5, 2]) if self.pick() else 1)

    async def _watch_once(self, viewer: Viewer, account: Account) -> bool:
        """Watch until the end, which is told by True, or until the line breaks."""
        name = f"{viewer.user_id} watching {viewer.run_id} after {viewer.cursor}"
        service = self.pick()
        if service is None:
            return False
        viewer.connection, viewer.since = Connection(), self.ledger.state.now()
        try:
            await service.call(self._stream(service, viewer), stream=viewer.connection)
        except ConnectionLostError:
            return False
        except ApexError as error:
            return self._has_given_up(error, viewer, account, name)
        finally:
            viewer.connection = None
        ended = account.ending is not None and viewer.cursor == len(account.events)
        self.verdict.require(ended, f"{name}: the stream ended, the log has {len(account.events)} events")
        return True

    def _has_given_up(self, error: ApexError, viewer: Viewer, account: Account, name: str) -> bool:
        if error.reason is ErrorReason.NOT_FOUND:
            self.verdict.require(account.is_deleted, f"{name}: not found, and nobody deleted it")
            return True
        if error.reason is ErrorReason.SLOW_CONSUMER:
            behind = len(account.events) - viewer.cursor
            slow = behind > MAX_WATCH_EVENTS
            self.verdict.require(slow, f"{name}: called slow, and is {behind} events behind")
            self.verdict.require(error.last_seq == viewer.cursor, f"{name}: told to come back from {error.last_seq}")
        else:
            self.verdict.require(error.reason in PASSING, f"{name}: {error.reason} {error}")
        return False

    def check_nobody_waits(self, now: datetime) -> None:
        """Where nothing fails, who reads at once has seen what was committed a second ago."""
        before = now - PROMPT
        for viewer in self.viewers:
            times = self.ledger.accounts[viewer.run_id].times
            reads = viewer.connection is not None and viewer.since is not None and viewer.since < before
            if reads and not viewer.pause_s and viewer.cursor < len(times) and times[viewer.cursor] < before:
                self.verdict.fail(f"{viewer.user_id} watches {viewer.run_id}, and was not told of {viewer.cursor + 1}")

    async def _stream(self, service: Service, viewer: Viewer) -> None:
        async with await service.broadcast.watch(caller(viewer.user_id), viewer.run_id, viewer.cursor) as watch:
            async for batch in watch:
                self._deliver(viewer, batch)
                if viewer.pause_s:
                    await asyncio.sleep(viewer.pause_s)

    def _deliver(self, viewer: Viewer, batch: Sequence[StoredEvent]) -> None:
        account, require = self.ledger.accounts[viewer.run_id], self.verdict.require
        most = max(MAX_WATCH_EVENTS, REPLAY_EVENTS)
        require(0 < len(batch) <= most, f"{viewer.run_id}: {len(batch)} events at once")
        for event in batch:
            require(event.seq == viewer.cursor + 1, f"{viewer.run_id}: seq {event.seq} after {viewer.cursor}")
            require(
                event.seq <= len(account.events), f"{viewer.run_id}: seq {event.seq} was seen before it was committed"
            )
            if event.seq <= len(account.events):
                require(
                    event.data == account.events[event.seq - 1], f"{viewer.run_id}: seq {event.seq} is not as committed"
                )
            viewer.cursor = event.seq
        self.verdict.note(f"{viewer.user_id} sees {viewer.run_id} to {viewer.cursor}")

    # ---- Everything else ----

    def cancel(self) -> None:
        """Ask some run to end."""
        if account := self._some_run():
            self.begin(self._cancel(account), f"{account.run.user_id} cancels {account.run.run_id}")

    async def _cancel(self, account: Account) -> None:
        run, key = account.run, account.run.client_message_id
        by_key = key != "" and self.chance.random() < 0.3
        names = {"client_message_id": key} if by_key else {"run_id": run.run_id}
        try:
            now = await self._call(lambda service: service.runs.cancel(caller(run.user_id), **names))
        except ConnectionLostError:
            return
        except ApexError as error:
            fine = error.reason in PASSING or (error.reason is ErrorReason.NOT_FOUND and account.is_deleted)
            self.verdict.require(fine, f"{run.run_id} cannot be cancelled: {error.reason} {error}")
            return
        waits = now.status is RunStatus.QUEUED and now.worker_id is None
        self.verdict.require(not waits, f"{run.run_id} was cancelled while nobody worked on it, and still waits")

    def delete(self) -> None:
        """Delete some thread."""
        if account := self._some_run():
            user_id, thread_id = account.run.user_id, account.run.thread_id
            self.begin(self._delete(user_id, thread_id), f"{user_id} deletes {thread_id}")

    async def _delete(self, user_id: str, thread_id: str) -> None:
        self.ledger.deletion_asked(thread_id)
        try:
            await self._call(lambda service: service.threads.delete(caller(user_id), thread_id))
        except ConnectionLostError:
            return
        except ApexError as error:
            gone = all(account.is_deleted for account in self.ledger.of_thread(thread_id))
            fine = error.reason in {*PASSING, ErrorReason.RUN_CONFLICT} or (
                error.reason is ErrorReason.NOT_FOUND and gone
            )
            self.verdict.require(fine, f"{thread_id} cannot be deleted: {error.reason} {error}")

    def look(self) -> None:
        """Read what one may read: a list of runs, a thread, its messages."""
        if account := self._some_run():
            self.begin(self._look(account), f"{account.run.user_id} looks at {account.run.run_id}")

    async def _look(self, account: Account) -> None:
        me, thread_id = caller(account.run.user_id), account.run.thread_id
        try:
            page = await self._call(
                lambda service: service.runs.list(me, thread_id=None, statuses=(), page_size=LISTED, page_token="")
            )
            messages = await self._call(
                lambda service: service.threads.list_messages(me, thread_id, page_size=LISTED, page_token="")
            )
            await self._call(lambda service: service.threads.rename(me, thread_id, "Another title"))
        except ConnectionLostError:
            return
        except ApexError as error:
            fine = error.reason in PASSING or (error.reason is ErrorReason.NOT_FOUND and account.is_deleted)
            self.verdict.require(fine, f"{thread_id} cannot be read: {error.reason} {error}")
            return
        owners = {run.user_id for run in page.items} | {message.user_id for message in messages.items}
        self.verdict.require(owners <= {me.user_id}, f"{me.user_id} was shown what belongs to {owners}")

    def pry(self) -> None:
        """Try to get at what belongs to somebody else."""
        if account := self._some_run():
            stranger = self.chance.choice([user_id for user_id in USERS if user_id != account.run.user_id])
            self.begin(self._pry(account, stranger), f"{stranger} pries into {account.run.run_id}")

    async def _pry(self, account: Account, stranger: str) -> None:
        me, run_id, thread_id = caller(stranger), account.run.run_id, account.run.thread_id
        tries: list[Callable[[Service], Coroutine[Any, Any, object]]] = [
            lambda service: service.runs.get(me, run_id),
            lambda service: service.runs.cancel(me, run_id=run_id),
            lambda service: _watched(service, me, run_id),
            lambda service: service.threads.get(me, thread_id),
            lambda service: service.threads.rename(me, thread_id, "Mine"),
            lambda service: service.threads.delete(me, thread_id),
            lambda service: service.threads.list_messages(me, thread_id, page_size=LISTED, page_token=""),
            lambda service: service.runs.accept(me, RunCommand("talk/1", thread_id)),
        ]
        number = self.chance.randrange(len(tries))
        try:
            await self._call(tries[number])
        except ConnectionLostError:
            return
        except ApexError as error:
            fine = error.reason in {*PASSING, ErrorReason.NOT_FOUND}
            self.verdict.require(fine, f"{stranger} prying into {run_id} ({number}): {error.reason} {error}")
            return
        self.verdict.fail(f"{stranger} got at {run_id} of {account.run.user_id} ({number})")

    async def _call(self, work: Callable[[Service], Coroutine[Any, Any, T]]) -> T:
        """Call a service that is up, and now and then go away. Raises `ConnectionLostError`, also when none is up."""
        service = self.pick()
        if service is None:
            raise ConnectionLostError
        patience_s = self.chance.choice([0.0, 0.002, 0.02]) if self.chance.random() < 0.05 else None
        try:
            async with asyncio.timeout(patience_s):
                return await service.call(work(service))
        except TimeoutError:
            raise ConnectionLostError from None

    def _threads_of(self, user_id: str) -> list[str]:
        accounts = self.ledger.accounts.values()
        mine = [one.run.thread_id for one in accounts if one.run.user_id == user_id and not one.is_deleted]
        return list(dict.fromkeys(mine[-6:]))

    def _some_run(self) -> Account | None:
        """Return some run, rather a new one."""
        accounts = list(self.ledger.accounts.values())
        if self.chance.random() < 0.7:
            accounts = [account for account in accounts if account.is_open] or accounts
        return self.chance.choice(accounts[-12:]) if accounts else None


async def _watched(service: Service, user: UserExecutionContext, run_id: str) -> None:
    watch = await service.broadcast.watch(user, run_id, 0)
    watch.close()

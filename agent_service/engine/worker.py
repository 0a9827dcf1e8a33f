"""The worker of this process: claims runs, beats for them, and stops them when it must."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from agent_service.engine.approvals import Approvals, Verdict
from agent_service.engine.attempt import Attempts, Job, Stop
from agent_service.engine.context import UserExecutionContext
from agent_service.engine.errors import FencedError
from agent_service.engine.events import ApprovalDecision
from storage.errors import RecordNotFoundError, StorageError, StorageUnavailableError
from storage.interfaces import Runs
from storage.records import RunRecord

BEAT_INTERVAL_MS: Final = 2_000
"""How often a worker renews its leases, and looks for questions that nobody answered in time."""

LEASE_MS: Final = 6_000
"""A run whose worker was silent for this long is claimed by another."""

POLL_INTERVAL_MS: Final = 1_000
"""How often an idle worker looks for runs without being woken."""

LEAVE_MS: Final = 10_000
"""Runs that are told to stop when the process ends have this long to hand themselves over."""


class Worker:
    """Works on at most `slots` runs at once. `worker_id` names it in the leases."""

    def __init__(
        self,
        runs: Runs,
        attempts: Attempts,
        approvals: Approvals,
        *,
        worker_id: str,
        slots: int,
        lease_ms: int = LEASE_MS,
        beat_interval_ms: int = BEAT_INTERVAL_MS,
        poll_interval_ms: int = POLL_INTERVAL_MS,
    ) -> None:
        self._runs = runs
        self._attempts = attempts
        self._approvals = approvals
        self._worker_id = worker_id
        self._slots = slots
        self._lease_ms = lease_ms
        self._beat_interval_ms = beat_interval_ms
        self._poll_interval_ms = poll_interval_ms
        self._jobs: dict[str, Job] = {}
        self._wakeup = asyncio.Event()
        self._left = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._draining = False
        self._loops: list[asyncio.Task[None]] = []
        self._logger = structlog.get_logger("apex.worker")

    @property
    def is_busy(self) -> bool:
        """True when no slot is free."""
        return len(self._jobs) >= self._slots

    def wake(self) -> None:
        """Look for work now."""
        self._wakeup.set()

    def start(self) -> None:
        """Start to claim, to beat, and to look for what has lapsed."""
        self._loops = [
            asyncio.create_task(self._forever(self._claim, self._until_woken), name="worker-claim"),
            asyncio.create_task(self._forever(self._beat, self._until_beat), name="worker-beat"),
            asyncio.create_task(self._forever(self._sweep, self._until_beat), name="worker-sweep"),
        ]

    async def drain(self, *, grace_ms: int) -> None:
        """Claim nothing more, let runs end or reach a safe point for `grace_ms`, hand the rest over, and stop."""
        self._draining = True
        for job in self._jobs.values():
            job.request_handover()
        if not await self._is_idle_within(grace_ms):
            for job in self._jobs.values():
                job.interrupt(Stop.HANDOVER)
            if not await self._is_idle_within(LEAVE_MS):
                self._logger.error("runs_left_behind", run_ids=list(self._jobs))
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def cancel(self, run: RunRecord, reason: str) -> None:
        """End a run whose cancellation is in the database: at once if nobody works on it, else through its worker.

        A worker of another process learns of it with its next beat.
        """
        # A claim that is under way may be of this very run: only after it is it certain who works here.
        async with self._claiming:
            job = self._jobs.get(run.run_id)
            if job is not None:
                job.interrupt(Stop.CANCEL, reason)
                return
            claimed = await self._runs.claim_run(run.user_id, run.run_id, self._worker_id, lease_ms=self._lease_ms)
        if claimed is None:
            return
        try:
            emitter = await self._attempts.open(claimed)
        except StorageError:
            raise
        except FencedError:
            return  # another worker has it by now, and learns of the cancellation with its next beat
        except Exception:
            # A log that this version cannot read. The cancellation is saved: whoever claims the run next ends it.
            self._logger.exception("run_abandoned", run_id=run.run_id)
            return
        with contextlib.suppress(FencedError):
            await emitter.cancel(reason)
        self.wake()

    async def decide(
        self, user: UserExecutionContext, run_id: str, approval_id: str, verdict: Verdict
    ) -> ApprovalDecision:
        """Answer a question of a waiting run, and work on it as soon as may be. Raises as `Approvals.resolve`."""
        decision = await self._approvals.resolve(user, run_id, approval_id, verdict)
        self.wake()
        return decision

    async def _forever(self, work: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        """Do `work` again and again until cancelled; no failure ends the loop."""
        while True:
            try:
                await work()
            except StorageUnavailableError as error:
                self._logger.warning("storage_unavailable", error=str(error))
            except Exception:
                self._logger.exception("worker_loop_failed")
            await pause()

    async def _until_woken(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_interval_ms / 1000):
                await self._wakeup.wait()

    async def _until_beat(self) -> None:
        await asyncio.sleep(self._beat_interval_ms / 1000)

    async def _is_idle_within(self, wait_ms: int) -> bool:
        try:
            async with asyncio.timeout(wait_ms / 1000):
                while self._jobs:
                    self._left.clear()
                    await self._left.wait()
                # A claim that was under way gives back what it got.
                await self._claiming.acquire()
        except TimeoutError:
            return False
        self._claiming.release()
        return True

    async def _claim(self) -> None:
        self._wakeup.clear()
        async with self._claiming:
            if self._draining or self.is_busy:
                return
            free = self._slots - len(self._jobs)
            for run in await self._runs.claim(self._worker_id, lease_ms=self._lease_ms, limit=free):
                await self._begin(run)

    async def _begin(self, run: RunRecord) -> None:
        if self._draining:
            await self._runs.release(run.run_id, run.epoch)
            return
        job = Job(run)
        lost = self._jobs.get(run.run_id)
        if lost is not None:
            # Our own lease ran out, and we were the first to notice: the new attempt begins where the old one stops.
            lost.interrupt(Stop.FENCED)
            job.before = lost.task
        self._jobs[run.run_id] = job
        job.task = asyncio.create_task(self._work(job), name=f"run-{run.run_id}")

    async def _beat(self) -> None:
        epochs = {job.run.run_id: job.run.epoch for job in self._jobs.values()}
        if not epochs:
            return
        for beat in await self._runs.beat(self._worker_id, epochs, lease_ms=self._lease_ms):
            job = self._jobs.get(beat.run_id)
            if job is None or job.run.epoch != epochs[beat.run_id]:
                continue
            if not beat.held:
                job.interrupt(Stop.FENCED)
            elif beat.cancel_reason is not None:
                job.interrupt(Stop.CANCEL, beat.cancel_reason)

    async def _sweep(self) -> None:
        if await self._approvals.expire():
            self.wake()

    async def _work(self, job: Job) -> None:
        run = job.run
        log = self._logger.bind(run_id=run.run_id, thread_id=run.thread_id, user_id=run.user_id, attempt=run.attempt)
        log.info("run_claimed", epoch=run.epoch)
        try:
            await self._attempts.work(job)
            log.info("run_left", stop=job.stop.name if job.stop else None)
        except FencedError:
            log.warning("run_fenced")
        except (StorageUnavailableError, RecordNotFoundError) as error:
            # Whoever claims it next goes on from the log: the lease runs out by itself.
            log.warning("run_abandoned", error=str(error))
        except Exception:
            log.exception("run_abandoned")
        finally:
            if self._jobs.get(run.run_id) is job:
                del self._jobs[run.run_id]
            self._left.set()
            self.wake()

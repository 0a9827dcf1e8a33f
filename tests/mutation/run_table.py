"""The promises of a run: one for each key, one end, and nothing lost when another worker takes it up."""

from typing import Final

from tests.mutation.mutants import Edit, Kind, mutant

STORAGE: Final = "tests/storage"
ENGINE: Final = "tests/agent_service/engine"
BRIDGE: Final = "tests/ws_bridge"
LOG: Final = f"{STORAGE}/test_event_log.py"
CLAIMS: Final = f"{STORAGE}/test_claims.py"
ACCEPTANCE: Final = f"{STORAGE}/test_acceptance.py"

EVENT_LOG: Final = "storage/event_log.py"
SQLITE: Final = "storage/sqlite_append.py"
POSTGRES: Final = "storage/postgres_append.py"
RUNS: Final = "storage/runs.py"
MEMORY: Final = "storage/memory.py"
MEMORY_RUNS: Final = "storage/memory_runs.py"
EMITTER: Final = "agent_service/engine/emitter.py"

IDEMPOTENCY: Final = (
    mutant(
        Kind.IDEMPOTENCY,
        "SQLite accepts a key again",
        f"{ACCEPTANCE}::test_the_same_key_finds_the_existing_run[sqlite]",
        Edit("storage/acceptance.py", "Acceptance.accept", "if new.client_message_id:", "if False:"),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "PostgreSQL accepts a key again",
        f"{ACCEPTANCE}::test_the_same_key_finds_the_existing_run[postgres]",
        Edit("storage/acceptance.py", "Acceptance.accept", "if new.client_message_id:", "if False:"),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "memory accepts a key again",
        f"{ACCEPTANCE}::test_the_same_key_finds_the_existing_run[memory]",
        Edit(MEMORY_RUNS, "MemoryRuns.accept", "self._find(new.user_id, new.client_message_id)", "None"),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "PostgreSQL lets racing calls with one key in at once",
        f"{ACCEPTANCE}::test_racing_calls_with_one_key_make_one_run[postgres-12]",
        Edit(
            "storage/acceptance.py",
            "Acceptance.accept",
            'yield from self._dialect.serialising("accept", new.user_id)',
            "pass",
        ),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "the database itself takes a key twice",
        f"{ACCEPTANCE}::test_the_database_itself_refuses_a_second_run_with_a_key[sqlite]",
        Edit(
            "storage/schema.py",
            "runs",
            'UniqueConstraint("user_id", "client_message_id")',
            'Index(None, "user_id", "client_message_id")',
        ),
        Edit(
            "storage/migrations/versions/v0001_first_tables.py",
            "",
            'sa.UniqueConstraint("user_id", "client_message_id", name="uq_runs_user_id_client_message_id"),',
            "",
        ),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "a key stands for any message",
        f"{ACCEPTANCE}::test_the_same_key_with_another_request_is_refused[sqlite]",
        Edit("storage/acceptance.py", "check_fingerprint", "existing.fingerprint != new.fingerprint", "False"),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "a key stands for any thread",
        f"{ENGINE}/test_runs.py::test_a_key_with_other_content_agent_or_thread_is_refused",
        Edit("agent_service/engine/runs.py", "Runs._accept", "self._check_same_thread(accepted.run, command)", "pass"),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "a run found by its key is announced like a new one",
        f"{ENGINE}/test_runs.py::test_a_repeated_message_is_announced_to_nobody",
        Edit("agent_service/engine/runs.py", "Runs._accept", "            return accepted\n", ""),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "the bridge repeats a message under a new key",
        f"{BRIDGE}/test_outages.py::test_a_start_whose_answer_is_lost_is_made_again_under_the_same_id",
        Edit(
            "ws_bridge/calls.py",
            "Calls.start_run.attempt",
            "            return ",
            "            start.run.client_message_id = str(__import__('uuid').uuid4())\n            return ",
        ),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "a tool call that has ended is run again",
        f"{ENGINE}/test_dispatcher.py::test_a_call_that_has_ended_is_not_run_again",
        Edit(
            "agent_service/engine/dispatcher.py",
            "Dispatcher._call",
            "if known is not None and known.completed is not None:",
            "if False:",
        ),
    ),
)

ENDING: Final = (
    *(
        mutant(
            Kind.ENDING,
            f"the end is committed apart from its events ({kind})",
            f"{LOG}::test_an_ending_that_cannot_be_saved_saves_nothing[{kind}]",
            Edit(
                EVENT_LOG,
                "SqlEventLog.append",
                "            held = await self._database.transact(lambda: dialect.append(appends))\n",
                "            from dataclasses import replace\n"
                "            apart = [replace(append, ending=None) for append in appends]\n"
                "            held = await self._database.transact(lambda: dialect.append(apart))\n"
                "            ends = [\n"
                "                replace(append, after_seq=append.events[-1].seq, events=(), checkpoint=None)\n"
                "                for append in appends\n"
                "                if append.ending and append.run_id in held\n"
                "            ]\n"
                "            await self._database.transact(lambda: dialect.append(ends))\n",
            ),
        )
        for kind in ("sqlite", "postgres")
    ),
    mutant(
        Kind.ENDING,
        "SQLite does not write the end to its run",
        f"{LOG}::test_an_ending_ends_the_run[sqlite]",
        Edit(SQLITE, "append", "(_ending(appends), _end)", "(_ending(appends), _advance)"),
    ),
    mutant(
        Kind.ENDING,
        "SQLite does not save the assistant's message",
        f"{LOG}::test_an_ending_ends_the_run[sqlite]",
        Edit(SQLITE, "_finish", "yield Query(_INSERT_MESSAGE, _message(ending.message))", "pass"),
    ),
    mutant(
        Kind.ENDING,
        "the end in SQLite does not touch its thread",
        f"{LOG}::test_an_ending_ends_the_run[sqlite]",
        Edit(SQLITE, "_finish", "yield Query(_TOUCH_THREAD, (to_microseconds(ending.end_time), run_id))", "pass"),
    ),
    mutant(
        Kind.ENDING,
        "PostgreSQL does not write the end to its run",
        f"{LOG}::test_an_ending_ends_the_run[postgres]",
        Edit(POSTGRES, "_ENDED", "end_time = locked.end_time,", ""),
        Edit(POSTGRES, "_ENDED", "status = coalesce(locked.status, runs.status),", ""),
    ),
    mutant(
        Kind.ENDING,
        "PostgreSQL does not save the assistant's message",
        f"{LOG}::test_an_ending_ends_the_run[postgres]",
        Edit(POSTGRES, "_ANSWERED", "WHERE message.run_id", "WHERE FALSE AND message.run_id"),
    ),
    mutant(
        Kind.ENDING,
        "the end in PostgreSQL does not touch its thread",
        f"{LOG}::test_an_ending_ends_the_run[postgres]",
        Edit(POSTGRES, "_TOUCHED", "WHERE threads.id", "WHERE FALSE AND threads.id"),
    ),
    mutant(
        Kind.ENDING,
        "memory does not save the assistant's message",
        f"{LOG}::test_an_ending_ends_the_run[memory]",
        Edit(MEMORY, "MemoryEventLog._append", "self._state.add_message(ending.message)", "pass"),
    ),
    mutant(
        Kind.ENDING,
        "the end in memory does not touch its thread",
        f"{LOG}::test_an_ending_ends_the_run[memory]",
        Edit(MEMORY, "MemoryEventLog._append", "self._state.touch(run.thread_id, ending.end_time)", "pass"),
    ),
    mutant(
        Kind.ENDING,
        "a run completes without its message",
        f"{ENGINE}/test_attempt.py::test_a_run_ends_with_its_answer_message_and_status_at_once",
        Edit(EMITTER, "RunEmitter.complete", "now, message)", "now)"),
    ),
    mutant(
        Kind.ENDING,
        "the last events are committed before the end",
        f"{ENGINE}/test_emitter.py::test_an_ending_is_one_transaction",
        Edit(
            EMITTER,
            "RunEmitter._end",
            "        self._writer.append(stored[-1]",
            "        await self._writer.flush()\n        self._writer.append(stored[-1]",
        ),
    ),
    mutant(
        Kind.ENDING,
        "the end is not written with the last event",
        f"{ENGINE}/test_emitter.py::test_an_ending_is_one_transaction",
        Edit(EMITTER, "RunEmitter._end", "stored[-1], ending=ending", "stored[-1]"),
    ),
    mutant(
        Kind.ENDING,
        "acceptance leaves its events out",
        f"{ACCEPTANCE}::test_a_new_run_is_saved_with_its_thread_message_and_first_event[sqlite]",
        Edit("storage/acceptance.py", "Acceptance.accept", "yield from self._dialect.insert_events(events)", "pass"),
    ),
    mutant(
        Kind.ENDING,
        "acceptance leaves its message out",
        f"{ACCEPTANCE}::test_a_new_run_is_saved_with_its_thread_message_and_first_event[sqlite]",
        Edit(
            "storage/acceptance.py",
            "Acceptance._insert",
            "yield self._insert_message(**message_row(user_message(new)))",
            "pass",
        ),
    ),
    mutant(
        Kind.ENDING,
        "a run may end twice",
        f"{ENGINE}/test_emitter.py::test_nothing_can_be_emitted_after_the_end",
        Edit("agent_service/engine/run.py", "RunState._fold", "self.ended = True", "pass"),
    ),
    mutant(
        Kind.ENDING,
        "workers of a run may be lost for ever",
        f"{ENGINE}/test_recovery.py::test_a_run_that_loses_every_worker_ends_in_the_end",
        Edit("agent_service/engine/attempt.py", "Attempts._answer", "run.claims > MAX_CLAIMS", "False"),
    ),
)

HANDOVER: Final = (
    mutant(
        Kind.HANDOVER,
        "any point is a safe one",
        f"{ENGINE}/test_emitter.py::test_a_handover_waits_for_a_safe_point_and_commits_it",
        Edit(
            EMITTER,
            "RunEmitter._is_safe_point",
            "isinstance(body, (ToolCompleted, AgentProgress)) and not self.state.open_tools",
            "True",
        ),
    ),
    mutant(
        Kind.HANDOVER,
        "no point is a safe one",
        f"{ENGINE}/test_emitter.py::test_a_handover_waits_for_a_safe_point_and_commits_it",
        Edit(
            EMITTER,
            "RunEmitter._is_safe_point",
            "isinstance(body, (ToolCompleted, AgentProgress)) and not self.state.open_tools",
            "False",
        ),
    ),
    mutant(
        Kind.HANDOVER,
        "who has handed a run over goes on to speak",
        f"{ENGINE}/test_handover.py::test_nothing_is_emitted_once_a_run_is_handed_over",
        Edit(EMITTER, "RunEmitter.emit", "self._left = True", "pass"),
    ),
    mutant(
        Kind.HANDOVER,
        "a run is left without being released",
        f"{ENGINE}/test_handover.py::test_a_run_is_handed_over_at_a_safe_point",
        Edit(
            "agent_service/engine/attempt.py",
            "Attempts.work",
            "await self.storage.runs.release(job.run.run_id, job.run.epoch)",
            "pass",
        ),
    ),
    mutant(
        Kind.HANDOVER,
        "a handover counts as a loss",
        f"{CLAIMS}::test_a_run_that_was_handed_over_is_claimed_again[sqlite]",
        Edit(RUNS, "SqlRuns.release", ", claims=0", ""),
    ),
    mutant(
        Kind.HANDOVER,
        "a cancellation breaks off the writing of the end",
        f"{ENGINE}/test_worker.py::test_a_cancellation_while_the_answer_is_being_committed_comes_too_late",
        Edit("agent_service/engine/attempt.py", "Job.interrupt", " or self.ending", ""),
    ),
    mutant(
        Kind.HANDOVER,
        "a cancellation during a claim is lost",
        f"{ENGINE}/test_worker.py::test_a_cancellation_while_the_run_is_being_claimed_is_not_lost",
        Edit(
            "agent_service/engine/worker.py",
            "Worker.cancel",
            "async with self._claiming:",
            "async with __import__('contextlib').nullcontext():",
        ),
    ),
    mutant(
        Kind.HANDOVER,
        "an unsafe tool is run again after a crash",
        f"{ENGINE}/test_run_scenarios.py::test_scenario[resume_with_open_tools]",
        Edit("agent_service/engine/run.py", "RunState._close_unsafe", "is Effect.UNSAFE", "is None"),
    ),
)

PAIRS: Final = (
    mutant(
        Kind.OWNERSHIP,
        "messages of a thread are those of anybody",
        f"{STORAGE}/test_ownership.py::test_somebody_else_finds_nothing_and_changes_nothing[sqlite-Threads.history]",
        Edit("storage/threads.py", "_visible_messages", "            runs.c.user_id == user_id,\n", ""),
        Edit("storage/threads.py", "_visible_messages", "            messages.c.user_id == user_id,\n", ""),
    ),
)
"""Two conditions of which each holds what the other one does."""

AGAIN: Final = (
    mutant(
        Kind.OWNERSHIP,
        "users share cached answers",
        f"{ENGINE}/test_answer_cache.py::test_two_users_never_share_an_answer",
        Edit("agent_service/engine/answer_cache.py", "AnswerCache.key_of", "            work.run.user_id,\n", ""),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "a step that begins afresh makes its calls again",
        f"{ENGINE}/test_pipeline.py::test_a_call_that_ended_is_not_made_again_by_a_retry_nor_by_another_model[unsafe]",
        Edit(
            "agent_service/engine/dispatcher.py",
            "Dispatcher.restart",
            "if afresh and tool_call_id not in",
            "if tool_call_id in",
        ),
    ),
    mutant(
        Kind.IDEMPOTENCY,
        "an unsafe call that was cut off is made again by a retry",
        f"{ENGINE}/test_pipeline.py::test_a_call_that_its_step_was_cut_off_in_is_repeated_only_if_that_is_safe",
        Edit("agent_service/engine/dispatcher.py", "Dispatcher.restart", "frozenset({Effect.UNSAFE})", "frozenset()"),
    ),
)
"""An answer is given again to its user only, and a step begins again without doing anything twice."""

RUN_MUTANTS: Final = (*IDEMPOTENCY, *ENDING, *HANDOVER, *PAIRS, *AGAIN)

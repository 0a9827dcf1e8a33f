"""The promises of the log: fenced, without a gap, delivered after the commit, one run for a key, one end."""

from typing import Final

from tests.mutation.mutants import Edit, Kind, Mutant

STORAGE: Final = "tests/storage"
ENGINE: Final = "tests/agent_service/engine"
API: Final = "tests/agent_service/api"
BRIDGE: Final = "tests/ws_bridge"
LOG: Final = f"{STORAGE}/test_event_log.py"
CLAIMS: Final = f"{STORAGE}/test_claims.py"
ACCEPTANCE: Final = f"{STORAGE}/test_acceptance.py"
PAGE: Final = "tests/browser/test_modules.py::test_modules[reducer.test.mjs]"

DIALECT: Final = "storage/dialect.py"
EVENT_LOG: Final = "storage/event_log.py"
RUNS: Final = "storage/runs.py"
MEMORY: Final = "storage/memory.py"
MEMORY_RUNS: Final = "storage/memory_runs.py"
BROADCAST: Final = "agent_service/engine/broadcast.py"
JOURNAL: Final = "agent_service/engine/journal.py"
EMITTER: Final = "agent_service/engine/emitter.py"


def _mutant(kind: Kind, name: str, test: str, *edits: Edit) -> Mutant:
    return Mutant(name, kind, edits, (test,))


FENCING: Final = (
    _mutant(
        Kind.FENCING,
        "SQLite appends without looking at the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[sqlite]",
        Edit(DIALECT, "_SQLITE_ADVANCE", "runs.epoch = a.epoch", "TRUE"),
    ),
    _mutant(
        Kind.FENCING,
        "SQLite appends without looking at the last seq",
        f"{LOG}::test_of_racing_writers_one_wins[sqlite]",
        Edit(DIALECT, "_SQLITE_ADVANCE", "runs.last_seq = a.after_seq", "TRUE"),
    ),
    _mutant(
        Kind.FENCING,
        "SQLite appends to a run that has ended",
        f"{LOG}::test_an_append_after_the_end_is_fenced[sqlite]",
        Edit(DIALECT, "_SQLITE_ADVANCE", "runs.end_time IS NULL", "TRUE"),
    ),
    _mutant(
        Kind.FENCING,
        "PostgreSQL appends without looking at the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[postgres]",
        Edit(DIALECT, "_POSTGRES_ADVANCE", "epoch = a.epoch", "TRUE"),
    ),
    _mutant(
        Kind.FENCING,
        "PostgreSQL appends without looking at the last seq",
        f"{LOG}::test_of_racing_writers_one_wins[postgres]",
        Edit(DIALECT, "_POSTGRES_ADVANCE", "last_seq = a.after_seq", "TRUE"),
    ),
    _mutant(
        Kind.FENCING,
        "PostgreSQL appends to a run that has ended",
        f"{LOG}::test_an_append_after_the_end_is_fenced[postgres]",
        Edit(DIALECT, "_POSTGRES_ADVANCE", "num_nulls(end_time) = 1", "TRUE"),
    ),
    _mutant(
        Kind.FENCING,
        "memory appends without looking at the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[memory]",
        Edit(
            MEMORY,
            "MemoryEventLog._append",
            "(run.epoch, run.last_seq) != (append.epoch, append.after_seq)",
            "run.last_seq != append.after_seq",
        ),
    ),
    _mutant(
        Kind.FENCING,
        "memory appends without looking at the last seq",
        f"{LOG}::test_of_racing_writers_one_wins[memory]",
        Edit(
            MEMORY,
            "MemoryEventLog._append",
            "(run.epoch, run.last_seq) != (append.epoch, append.after_seq)",
            "run.epoch != append.epoch",
        ),
    ),
    _mutant(
        Kind.FENCING,
        "memory appends to a run that has ended",
        f"{LOG}::test_an_append_after_the_end_is_fenced[memory]",
        Edit(MEMORY, "MemoryEventLog._append", "run.end_time", "False"),
    ),
    _mutant(
        Kind.FENCING,
        "what is fenced is written all the same",
        f"{LOG}::test_a_fenced_append_writes_nothing_at_all[sqlite]",
        Edit(EVENT_LOG, "SqlEventLog.append", "if append.run_id in advanced]\n", "]\n"),
    ),
    _mutant(
        Kind.FENCING,
        "a claim leaves the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[sqlite]",
        Edit(RUNS, "SqlRuns.claim", "runs.c.epoch + 1", "runs.c.epoch"),
    ),
    _mutant(
        Kind.FENCING,
        "the claim of one run leaves the epoch",
        f"{CLAIMS}::test_claiming_one_run_changes_its_holder_and_nothing_else[sqlite]",
        Edit(RUNS, "SqlRuns.claim_run", "runs.c.epoch + 1", "runs.c.epoch"),
    ),
    _mutant(
        Kind.FENCING,
        "a claim in memory leaves the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[memory]",
        Edit(MEMORY_RUNS, "MemoryRuns._claim", "run.epoch + 1", "run.epoch"),
    ),
    _mutant(
        Kind.FENCING,
        "the claim of one run in memory leaves the epoch",
        f"{CLAIMS}::test_claiming_one_run_changes_its_holder_and_nothing_else[memory]",
        Edit(MEMORY_RUNS, "MemoryRuns.claim_run", "run.epoch + 1", "run.epoch"),
    ),
    _mutant(
        Kind.FENCING,
        "a run under a live lease is claimed",
        f"{CLAIMS}::test_a_held_run_is_not_claimed_singly[sqlite]",
        Edit(RUNS, "_unheld", "return or_(", "return True | or_("),
    ),
    _mutant(
        Kind.FENCING,
        "whoever was fenced releases the run of another",
        f"{CLAIMS}::test_the_releaser_is_fenced_once_another_has_claimed[sqlite]",
        Edit(RUNS, "SqlRuns.release", "runs.c.epoch == epoch, ", ""),
    ),
    _mutant(
        Kind.FENCING,
        "a fenced run goes on",
        f"{ENGINE}/test_journal.py::test_a_fenced_run_stops_alone",
        Edit(JOURNAL, "Journal._commit", "writer.failed(FencedError(append.run_id))\n                continue", "pass"),
    ),
    _mutant(
        Kind.FENCING,
        "after a lost answer the epoch is not looked at",
        f"{ENGINE}/test_journal.py::test_what_its_heir_has_written_is_not_taken_for_its_own",
        Edit(JOURNAL, "Journal._settled", "position.epoch != append.epoch", "False"),
    ),
    _mutant(
        Kind.FENCING,
        "a worker does not hear from its beat that it lost a run",
        f"{ENGINE}/test_lost_runs.py::test_a_worker_that_lost_its_run_learns_it_from_its_beat",
        Edit("agent_service/engine/worker.py", "Worker._beat", "job.interrupt(Stop.FENCED)", "pass"),
    ),
)

DELIVERY: Final = (
    _mutant(
        Kind.DELIVERY,
        "a watch looks at the run before it subscribes",
        f"{ENGINE}/test_broadcast.py::test_what_is_committed_while_a_watcher_subscribes_is_not_missed",
        Edit(BROADCAST, "Broadcast.watch", "self._watches.setdefault(run_id, set()).add(watch)\n", "\n"),
        Edit(
            BROADCAST,
            "Broadcast.watch",
            "        if after_seq > run.last_seq:",
            "        self._watches.setdefault(run_id, set()).add(watch)\n        if after_seq > run.last_seq:",
        ),
    ),
    _mutant(
        Kind.DELIVERY,
        "a session reports what is open before it subscribes",
        f"{API}/test_attach.py::test_a_change_while_a_session_begins_is_not_missed",
        Edit(
            "agent_service/api/session.py",
            "Session._serve_signed_in",
            "            await self._ready(user)\n",
            "",
        ),
        Edit(
            "agent_service/api/session.py",
            "Session._serve_signed_in",
            "        with self._services.",
            "        await self._ready(user)\n        with self._services.",
        ),
    ),
    _mutant(
        Kind.DELIVERY,
        "events are delivered before they are committed",
        f"{ENGINE}/test_journal.py::test_nothing_is_delivered_and_no_flush_returns_before_the_commit",
        Edit(
            JOURNAL,
            "Journal._commit",
            "            outcomes = await self._append(",
            "            for _, append in batch: self._announce(append)\n            outcomes = await self._append(",
        ),
    ),
    _mutant(
        Kind.DELIVERY,
        "a flush does not wait for the commit",
        f"{ENGINE}/test_journal.py::test_nothing_is_delivered_and_no_flush_returns_before_the_commit",
        Edit(JOURNAL, "RunWriter.flush", "await self._next_commit()", "return"),
    ),
    _mutant(
        Kind.DELIVERY,
        "a tool runs before its call is committed",
        f"{ENGINE}/test_dispatcher.py::test_the_call_is_committed_before_the_tool_runs",
        Edit(
            "agent_service/engine/dispatcher.py",
            "Dispatcher._announce",
            "self._emitter.commit(agent_name, executing)",
            "self._emitter.emit(agent_name, executing)",
        ),
    ),
    _mutant(
        Kind.DELIVERY,
        "a stream over gRPC leaves its events out",
        f"{API}/test_run_agent.py::test_run_agent_tells_the_ids_and_streams_every_event_to_the_terminal_one",
        Edit("agent_service/api/agents_servicer.py", "AgentServicer._stream", "await call.send(event.data)", "pass"),
    ),
    _mutant(
        Kind.DELIVERY,
        "a watch of a session leaves its events out",
        f"{API}/test_attach.py::test_a_watch_gets_what_follows_its_cursor_then_live_then_its_end",
        Edit(
            "agent_service/api/watches.py",
            "Watches._pass_on",
            "await self._outbox.deliver([framer.frame(event.data) for event in batch])",
            "pass",
        ),
    ),
    _mutant(
        Kind.DELIVERY,
        "the bridge leaves events out",
        f"{BRIDGE}/test_sockets.py::test_the_ack_comes_before_the_first_event_and_events_in_order",
        Edit("ws_bridge/session.py", "Session._event", "[fx.SendEvent(event.data)]", "[]"),
    ),
    _mutant(
        Kind.DELIVERY,
        "the bridge does not watch again when the service is back",
        f"{BRIDGE}/test_outages.py::test_a_run_goes_on_where_it_was",
        Edit("ws_bridge/session.py", "Session.on_ready", "*self._streams.watch_all()", "*()"),
    ),
)

GAP: Final = (
    _mutant(
        Kind.GAP,
        "a watch hands out what does not follow",
        f"{ENGINE}/test_broadcast.py::test_a_log_with_a_gap_is_not_handed_out",
        Edit(BROADCAST, "Watch._hand_out", "batch[0].seq != self.last_seq + 1", "False"),
    ),
    _mutant(
        Kind.GAP,
        "a watch queues what does not follow",
        f"{ENGINE}/test_broadcast.py::test_a_watcher_that_comes_at_any_moment_sees_every_event_once_in_order",
        Edit(BROADCAST, "Watch.push", "event.seq == self._queued_seq() + 1", "True"),
    ),
    _mutant(
        Kind.GAP,
        "a watch takes an event twice",
        f"{ENGINE}/test_broadcast.py::test_events_that_are_told_late_are_not_told_twice",
        Edit(BROADCAST, "Watch.push", "event.seq <= self._known_seq", "False"),
    ),
    _mutant(
        Kind.GAP,
        "the bridge passes over a gap",
        f"{BRIDGE}/test_session.py::test_a_conversation_has_exactly_these_effects[resume]",
        Edit("ws_bridge/streams.py", "Streams.take", "seq != stream.last_seq + 1", "False"),
    ),
    _mutant(
        Kind.GAP,
        "the bridge sends an event twice",
        f"{BRIDGE}/test_session.py::test_a_conversation_has_exactly_these_effects[resume]",
        Edit("ws_bridge/streams.py", "Streams.take", "seq <= stream.last_seq", "False"),
    ),
    _mutant(
        Kind.GAP,
        "a run folds any seq",
        f"{ENGINE}/test_run_properties.py::test_only_the_next_event_is_folded",
        Edit("agent_service/engine/run.py", "RunState.apply", "event.seq != self.last_seq + 1", "False"),
    ),
    _mutant(
        Kind.GAP,
        "an emitter waits between the state machine and the journal",
        f"{ENGINE}/test_emitter.py::test_a_producer_that_is_cancelled_while_it_waits_leaves_no_gap",
        Edit(EMITTER, "RunEmitter.emit", "        await self._writer.room()\n", ""),
        Edit(
            EMITTER,
            "RunEmitter.emit",
            "        self.state.apply(event)\n",
            "        self.state.apply(event)\n        await self._writer.room()\n",
        ),
    ),
    _mutant(
        Kind.GAP,
        "an ending that does not fit leaves half of it behind",
        f"{ENGINE}/test_emitter.py::test_what_does_not_fit_is_as_if_it_had_not_been_tried",
        Edit(EMITTER, "RunEmitter._tried", "self.state.all_or_nothing()", "__import__('contextlib').nullcontext()"),
    ),
    _mutant(
        Kind.GAP,
        "storage takes events that do not follow",
        f"{LOG}::test_a_broken_append_is_a_defect",
        Edit("storage/appends.py", "check_appends", "event.seq != seq", "False"),
    ),
    _mutant(
        Kind.GAP,
        "after a lost answer the journal appends again",
        f"{ENGINE}/test_journal.py::test_whatever_the_database_does_each_event_is_there_and_delivered_once",
        Edit(JOURNAL, "Journal._append", "unknown or error.outcome_unknown", "False"),
    ),
    _mutant(
        Kind.GAP,
        "the page passes over a gap",
        PAGE,
        Edit("ws_bridge/static/reducer.js", "", "frame.seq > run.cursor + 1", "false"),
    ),
    _mutant(
        Kind.GAP,
        "the page shows an event twice",
        PAGE,
        Edit("ws_bridge/static/reducer.js", "", "if (frame.seq <= run.cursor) return state;", ""),
    ),
)

IDEMPOTENCY: Final = (
    _mutant(
        Kind.IDEMPOTENCY,
        "SQLite accepts a key again",
        f"{ACCEPTANCE}::test_the_same_key_finds_the_existing_run[sqlite]",
        Edit("storage/acceptance.py", "accept", "if new.client_message_id and", "if False and"),
    ),
    _mutant(
        Kind.IDEMPOTENCY,
        "PostgreSQL accepts a key again",
        f"{ACCEPTANCE}::test_the_same_key_finds_the_existing_run[postgres]",
        Edit("storage/acceptance.py", "accept", "if new.client_message_id and", "if False and"),
    ),
    _mutant(
        Kind.IDEMPOTENCY,
        "memory accepts a key again",
        f"{ACCEPTANCE}::test_the_same_key_finds_the_existing_run[memory]",
        Edit(MEMORY_RUNS, "MemoryRuns.accept", "self._find(new.user_id, new.client_message_id)", "None"),
    ),
    _mutant(
        Kind.IDEMPOTENCY,
        "PostgreSQL lets racing calls with one key in at once",
        f"{ACCEPTANCE}::test_racing_calls_with_one_key_make_one_run[postgres-12]",
        Edit("storage/acceptance.py", "accept", 'await dialect.serialise(connection, "accept", new.user_id)', "pass"),
    ),
    _mutant(
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
    _mutant(
        Kind.IDEMPOTENCY,
        "a key stands for any message",
        f"{ACCEPTANCE}::test_the_same_key_with_another_request_is_refused[sqlite]",
        Edit("storage/acceptance.py", "check_fingerprint", "existing.fingerprint != new.fingerprint", "False"),
    ),
    _mutant(
        Kind.IDEMPOTENCY,
        "a key stands for any thread",
        f"{ENGINE}/test_runs.py::test_a_key_with_other_content_agent_or_thread_is_refused",
        Edit("agent_service/engine/runs.py", "Runs._accept", "self._check_same_thread(accepted.run, command)", "pass"),
    ),
    _mutant(
        Kind.IDEMPOTENCY,
        "a run found by its key is announced like a new one",
        f"{ENGINE}/test_runs.py::test_a_repeated_message_is_announced_to_nobody",
        Edit("agent_service/engine/runs.py", "Runs._accept", "            return accepted\n", ""),
    ),
    _mutant(
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
    _mutant(
        Kind.IDEMPOTENCY,
        "a tool call that has ended is run again",
        f"{ENGINE}/test_dispatcher.py::test_a_call_that_has_ended_is_not_run_again",
        Edit(
            "agent_service/engine/dispatcher.py",
            "Dispatcher.call",
            "if known is not None and known.completed is not None:",
            "if False:",
        ),
    ),
)

ENDING: Final = (
    _mutant(
        Kind.ENDING,
        "the end is committed apart from its events",
        f"{LOG}::test_an_ending_that_cannot_be_saved_saves_nothing[sqlite]",
        Edit(EVENT_LOG, "SqlEventLog.append", "await _end_runs(connection, ended)", "later.append(ended)"),
        Edit(
            EVENT_LOG,
            "SqlEventLog.append",
            "        advanced = await self._database.write(work)\n",
            "        later: list = []\n"
            "        advanced = await self._database.write(work)\n"
            "        for ended in later:\n"
            "            await self._database.write(lambda connection: _end_runs(connection, ended))\n",
        ),
    ),
    _mutant(
        Kind.ENDING,
        "the end is not written to its run",
        f"{LOG}::test_an_ending_ends_the_run[sqlite]",
        Edit(EVENT_LOG, "SqlEventLog.append", "await _end_runs(connection, ended)", "pass"),
    ),
    _mutant(
        Kind.ENDING,
        "the assistant's message is not saved",
        f"{LOG}::test_an_ending_ends_the_run[sqlite]",
        Edit(EVENT_LOG, "_end_runs", "await connection.execute(insert(messages), rows)", "pass"),
    ),
    _mutant(
        Kind.ENDING,
        "the end does not touch its thread",
        f"{LOG}::test_an_ending_ends_the_run[sqlite]",
        Edit(EVENT_LOG, "_end_runs", '.values(update_time=bindparam("ended_at"))', ".values(title=threads.c.title)"),
    ),
    _mutant(
        Kind.ENDING,
        "memory does not save the assistant's message",
        f"{LOG}::test_an_ending_ends_the_run[memory]",
        Edit(MEMORY, "MemoryEventLog._append", "self._state.add_message(ending.message)", "pass"),
    ),
    _mutant(
        Kind.ENDING,
        "the end in memory does not touch its thread",
        f"{LOG}::test_an_ending_ends_the_run[memory]",
        Edit(MEMORY, "MemoryEventLog._append", "self._state.touch(run.thread_id, ending.end_time)", "pass"),
    ),
    _mutant(
        Kind.ENDING,
        "a run completes without its message",
        f"{ENGINE}/test_attempt.py::test_a_run_ends_with_its_answer_message_and_status_at_once",
        Edit(EMITTER, "RunEmitter.complete", "now, message)", "now)"),
    ),
    _mutant(
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
    _mutant(
        Kind.ENDING,
        "the end is not written with the last event",
        f"{ENGINE}/test_emitter.py::test_an_ending_is_one_transaction",
        Edit(EMITTER, "RunEmitter._end", "stored[-1], ending=ending", "stored[-1]"),
    ),
    _mutant(
        Kind.ENDING,
        "acceptance leaves its events out",
        f"{ACCEPTANCE}::test_a_new_run_is_saved_with_its_thread_message_and_first_event[sqlite]",
        Edit("storage/acceptance.py", "accept", "await dialect.insert_events(connection, events)", "pass"),
    ),
    _mutant(
        Kind.ENDING,
        "acceptance leaves its message out",
        f"{ACCEPTANCE}::test_a_new_run_is_saved_with_its_thread_message_and_first_event[sqlite]",
        Edit(
            "storage/acceptance.py",
            "_insert",
            "await connection.execute(insert(messages).values(message_row(user_message(new))))",
            "pass",
        ),
    ),
    _mutant(
        Kind.ENDING,
        "a run may end twice",
        f"{ENGINE}/test_emitter.py::test_nothing_can_be_emitted_after_the_end",
        Edit("agent_service/engine/run.py", "RunState._fold", "self.ended = True", "pass"),
    ),
    _mutant(
        Kind.ENDING,
        "workers of a run may be lost for ever",
        f"{ENGINE}/test_recovery.py::test_a_run_that_loses_every_worker_ends_in_the_end",
        Edit("agent_service/engine/attempt.py", "Attempts._answer", "run.claims > MAX_CLAIMS", "False"),
    ),
)

HANDOVER: Final = (
    _mutant(
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
    _mutant(
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
    _mutant(
        Kind.HANDOVER,
        "who has handed a run over goes on to speak",
        f"{ENGINE}/test_handover.py::test_nothing_is_emitted_once_a_run_is_handed_over",
        Edit(EMITTER, "RunEmitter.emit", "self._left = True", "pass"),
    ),
    _mutant(
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
    _mutant(
        Kind.HANDOVER,
        "a handover counts as a loss",
        f"{CLAIMS}::test_a_run_that_was_handed_over_is_claimed_again[sqlite]",
        Edit(RUNS, "SqlRuns.release", ", claims=0", ""),
    ),
    _mutant(
        Kind.HANDOVER,
        "a cancellation breaks off the writing of the end",
        f"{ENGINE}/test_worker.py::test_a_cancellation_while_the_answer_is_being_committed_comes_too_late",
        Edit("agent_service/engine/attempt.py", "Job.interrupt", " or self.ending", ""),
    ),
    _mutant(
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
    _mutant(
        Kind.HANDOVER,
        "an unsafe tool is run again after a crash",
        f"{ENGINE}/test_run_scenarios.py::test_scenario[resume_with_open_tools]",
        Edit("agent_service/engine/run.py", "RunState.resume", "is Effect.UNSAFE", "is None"),
    ),
)

PAIRS: Final = (
    _mutant(
        Kind.OWNERSHIP,
        "messages of a thread are those of anybody",
        f"{STORAGE}/test_ownership.py::test_somebody_else_finds_nothing_and_changes_nothing[sqlite-Threads.history]",
        Edit("storage/threads.py", "_visible_messages", "            runs.c.user_id == user_id,\n", ""),
        Edit("storage/threads.py", "_visible_messages", "            messages.c.user_id == user_id,\n", ""),
    ),
)
"""Two conditions of which each holds what the other one does."""

LOG_MUTANTS: Final = (*FENCING, *DELIVERY, *GAP, *IDEMPOTENCY, *ENDING, *HANDOVER, *PAIRS)

"""The promises of the log: fenced, without a gap, delivered after the commit."""

from typing import Final

from tests.mutation.mutants import Edit, Kind, mutant

STORAGE: Final = "tests/storage"
ENGINE: Final = "tests/agent_service/engine"
API: Final = "tests/agent_service/api"
BRIDGE: Final = "tests/ws_bridge"
LOG: Final = f"{STORAGE}/test_event_log.py"
CLAIMS: Final = f"{STORAGE}/test_claims.py"
PAGE: Final = "tests/browser/test_modules.py::test_modules[reducer.test.mjs]"

SQLITE: Final = "storage/sqlite_append.py"
POSTGRES: Final = "storage/postgres_append.py"
CLAIMING: Final = "storage/claiming.py"
RUNS: Final = "storage/runs.py"
MEMORY: Final = "storage/memory.py"
MEMORY_RUNS: Final = "storage/memory_runs.py"
BROADCAST: Final = "agent_service/engine/broadcast.py"
JOURNAL: Final = "agent_service/engine/journal.py"
EMITTER: Final = "agent_service/engine/emitter.py"


FENCING: Final = (
    mutant(
        Kind.FENCING,
        "SQLite appends without looking at the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[sqlite]",
        Edit(SQLITE, "_FENCE", "runs.epoch = given.epoch", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "SQLite appends without looking at the last seq",
        f"{LOG}::test_of_racing_writers_one_wins[sqlite]",
        Edit(SQLITE, "_FENCE", "runs.last_seq = given.after_seq", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "SQLite appends to a run that has ended",
        f"{LOG}::test_an_append_after_the_end_is_fenced[sqlite]",
        Edit(SQLITE, "_FENCE", "runs.end_time IS NULL", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "PostgreSQL appends without looking at the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[postgres]",
        Edit(POSTGRES, "_LOCKED", "epoch = given.epoch", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "PostgreSQL appends without looking at the last seq",
        f"{LOG}::test_of_racing_writers_one_wins[postgres]",
        Edit(POSTGRES, "_LOCKED", "last_seq = given.after_seq", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "PostgreSQL appends to a run that has ended",
        f"{LOG}::test_an_append_after_the_end_is_fenced[postgres]",
        Edit(POSTGRES, "_LOCKED", "num_nulls(end_time) = 1", "TRUE"),
    ),
    mutant(
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
    mutant(
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
    mutant(
        Kind.FENCING,
        "memory appends to a run that has ended",
        f"{LOG}::test_an_append_after_the_end_is_fenced[memory]",
        Edit(MEMORY, "MemoryEventLog._append", "run.end_time", "False"),
    ),
    mutant(
        Kind.FENCING,
        "SQLite writes what is fenced all the same",
        f"{LOG}::test_a_fenced_append_writes_nothing_at_all[sqlite]",
        Edit(SQLITE, "append", "counted[0].changed != len(chosen)", "False"),
    ),
    mutant(
        Kind.FENCING,
        "PostgreSQL gives a run the events of another",
        f"{LOG}::test_appends_of_many_runs_have_their_own_outcomes_in_order[postgres]",
        Edit(POSTGRES, "_WRITTEN", "locked.events_before + place", "place"),
    ),
    mutant(
        Kind.FENCING,
        "PostgreSQL writes the message of what is fenced",
        f"{LOG}::test_a_fenced_append_writes_nothing_at_all[postgres]",
        Edit(POSTGRES, "_ANSWERED", "message.run_id IN (SELECT id FROM locked)", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "PostgreSQL writes the checkpoint of what is fenced",
        f"{LOG}::test_a_fenced_append_writes_nothing_at_all[postgres]",
        Edit(POSTGRES, "_SAVED", "checkpoint.run_id IN (SELECT id FROM locked)", "TRUE"),
    ),
    mutant(
        Kind.FENCING,
        "a claim leaves the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[sqlite]",
        Edit(CLAIMING, "Claiming.__init__", "runs.c.epoch + 1", "runs.c.epoch"),
    ),
    mutant(
        Kind.FENCING,
        "the claim of one run leaves the epoch",
        f"{CLAIMS}::test_claiming_one_run_changes_its_holder_and_nothing_else[sqlite]",
        Edit(RUNS, "SqlRuns.claim_run", "runs.c.epoch + 1", "runs.c.epoch"),
    ),
    mutant(
        Kind.FENCING,
        "a claim in memory leaves the epoch",
        f"{LOG}::test_the_earlier_worker_is_fenced_by_a_claim[memory]",
        Edit(MEMORY_RUNS, "MemoryRuns._claim", "run.epoch + 1", "run.epoch"),
    ),
    mutant(
        Kind.FENCING,
        "the claim of one run in memory leaves the epoch",
        f"{CLAIMS}::test_claiming_one_run_changes_its_holder_and_nothing_else[memory]",
        Edit(MEMORY_RUNS, "MemoryRuns.claim_run", "run.epoch + 1", "run.epoch"),
    ),
    mutant(
        Kind.FENCING,
        "a run under a live lease is claimed",
        f"{CLAIMS}::test_a_held_run_is_not_claimed_singly[sqlite]",
        Edit(CLAIMING, "unheld", "return or_(", "return or_(__import__('sqlalchemy').literal_column('1 = 1'), "),
    ),
    mutant(
        Kind.FENCING,
        "whoever was fenced releases the run of another",
        f"{CLAIMS}::test_the_releaser_is_fenced_once_another_has_claimed[sqlite]",
        Edit(RUNS, "SqlRuns.release", "runs.c.epoch == epoch, ", ""),
    ),
    mutant(
        Kind.FENCING,
        "a fenced run goes on",
        f"{ENGINE}/test_journal.py::test_a_fenced_run_stops_alone",
        Edit(JOURNAL, "Journal._commit", "writer.failed(FencedError(append.run_id))\n                continue", "pass"),
    ),
    mutant(
        Kind.FENCING,
        "after a lost answer the epoch is not looked at",
        f"{ENGINE}/test_journal.py::test_what_its_heir_has_written_is_not_taken_for_its_own",
        Edit(JOURNAL, "Journal._settled", "position.epoch != append.epoch", "False"),
    ),
    mutant(
        Kind.FENCING,
        "a worker does not hear from its beat that it lost a run",
        f"{ENGINE}/test_lost_runs.py::test_a_worker_that_lost_its_run_learns_it_from_its_beat",
        Edit("agent_service/engine/worker.py", "Worker._beat", "job.interrupt(Stop.FENCED)", "pass"),
    ),
)

DELIVERY: Final = (
    mutant(
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
        Edit(
            BROADCAST,
            "Broadcast.watch",
            "            watch.push(beginning[after_seq:])\n",
            "            self._watches.setdefault(run_id, set()).add(watch)\n"
            "            watch.push(beginning[after_seq:])\n",
        ),
    ),
    mutant(
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
    mutant(
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
    mutant(
        Kind.DELIVERY,
        "a flush does not wait for the commit",
        f"{ENGINE}/test_journal.py::test_nothing_is_delivered_and_no_flush_returns_before_the_commit",
        Edit(JOURNAL, "RunWriter.flush", "await self._next_commit()", "return"),
    ),
    mutant(
        Kind.DELIVERY,
        "a tool runs before its call is committed",
        f"{ENGINE}/test_dispatcher.py::test_the_call_is_committed_before_the_tool_runs",
        Edit(
            "agent_service/engine/dispatcher.py",
            "Dispatcher._announce",
            "self.emitter.commit(agent_name, executing)",
            "self.emitter.emit(agent_name, executing)",
        ),
    ),
    mutant(
        Kind.DELIVERY,
        "a stream over gRPC leaves its events out",
        f"{API}/test_run_agent.py::test_run_agent_tells_the_ids_and_streams_every_event_to_the_terminal_one",
        Edit("agent_service/api/agents_servicer.py", "AgentServicer._stream", "await call.send(event.data)", "pass"),
    ),
    mutant(
        Kind.DELIVERY,
        "a watch of a session leaves its events out",
        f"{API}/test_attach.py::test_a_watch_gets_what_follows_its_cursor_then_live_then_its_end",
        Edit(
            "agent_service/api/watches.py",
            "Watches._pass_on",
            "await self._outbox.deliver(watching.frames(batch))",
            "watching.frames(batch)",
        ),
    ),
    mutant(
        Kind.DELIVERY,
        "a watch of a session leaves its live events out",
        f"{API}/test_attach.py::test_a_watch_gets_what_follows_its_cursor_then_live_then_its_end",
        Edit("agent_service/api/watches.py", "_Watching.take", "self._outbox.put(frame)", "pass"),
    ),
    mutant(
        Kind.DELIVERY,
        "the bridge leaves events out",
        f"{BRIDGE}/test_sockets.py::test_the_ack_comes_before_the_first_event_and_events_in_order",
        Edit("ws_bridge/session.py", "Session.on_events", "[fx.SendEvents(texts)]", "[]"),
    ),
    mutant(
        Kind.DELIVERY,
        "the bridge does not watch again when the service is back",
        f"{BRIDGE}/test_outages.py::test_a_run_goes_on_where_it_was",
        Edit("ws_bridge/session.py", "Session.on_ready", "*self._streams.watch_all()", "*()"),
    ),
)

GAP: Final = (
    mutant(
        Kind.GAP,
        "a watch hands out what does not follow",
        f"{ENGINE}/test_broadcast.py::test_a_log_with_a_gap_is_not_handed_out",
        Edit(BROADCAST, "Watch._hand_out", "batch[0].seq != self.last_seq + 1", "False"),
    ),
    mutant(
        Kind.GAP,
        "a watch queues what does not follow",
        f"{ENGINE}/test_broadcast.py::test_a_watcher_that_comes_at_any_moment_sees_every_event_once_in_order",
        Edit(BROADCAST, "Watch.push", "event.seq == self._queued_seq() + 1", "True"),
    ),
    mutant(
        Kind.GAP,
        "a watch passes on what does not follow",
        f"{ENGINE}/test_broadcast.py::test_what_was_missed_comes_before_what_a_sink_gets",
        Edit(
            BROADCAST, "Watch._passes_on", "not events[0].seq - 1 == self.last_seq == self._known_seq", "self._finished"
        ),
    ),
    mutant(
        Kind.GAP,
        "a run that just began is continued with any event",
        f"{ENGINE}/test_beginnings.py::test_what_does_not_continue_it_ends_it",
        Edit(
            "agent_service/engine/beginnings.py",
            "Beginnings.extend",
            "events[0].seq != beginning.last_seq + 1",
            "False",
        ),
    ),
    mutant(
        Kind.GAP,
        "a watch takes an event twice",
        f"{ENGINE}/test_broadcast.py::test_events_that_are_told_late_are_not_told_twice",
        Edit(BROADCAST, "Watch.push", "event.seq <= self._known_seq", "False"),
    ),
    mutant(
        Kind.GAP,
        "the bridge passes over a gap",
        f"{BRIDGE}/test_session.py::test_a_conversation_has_exactly_these_effects[resume]",
        Edit("ws_bridge/streams.py", "Streams.take", "first_seq > stream.last_seq + 1", "False"),
    ),
    mutant(
        Kind.GAP,
        "the bridge sends an event twice",
        f"{BRIDGE}/test_session.py::test_a_conversation_has_exactly_these_effects[resume]",
        Edit("ws_bridge/streams.py", "Streams.take", "first_seq + count - 1 - stream.last_seq", "count"),
    ),
    mutant(
        Kind.GAP,
        "a run folds any seq",
        f"{ENGINE}/test_run_properties.py::test_only_the_next_event_is_folded",
        Edit("agent_service/engine/run.py", "RunState.apply", "event.seq != self.last_seq + 1", "False"),
    ),
    mutant(
        Kind.GAP,
        "an emitter waits between the state machine and the journal",
        f"{ENGINE}/test_emitter.py::test_a_producer_that_is_cancelled_while_it_waits_leaves_no_gap",
        Edit(
            EMITTER,
            "RunEmitter.emit",
            "        if not self._writer.has_room:\n            await self._writer.room()\n",
            "",
        ),
        Edit(
            EMITTER,
            "RunEmitter.emit",
            "        self.state.apply(event)\n",
            "        self.state.apply(event)\n        await self._writer.room()\n",
        ),
    ),
    mutant(
        Kind.GAP,
        "an ending that does not fit leaves half of it behind",
        f"{ENGINE}/test_emitter.py::test_what_does_not_fit_is_as_if_it_had_not_been_tried",
        Edit(EMITTER, "RunEmitter._tried", "self.state.all_or_nothing()", "__import__('contextlib').nullcontext()"),
    ),
    mutant(
        Kind.GAP,
        "storage takes events that do not follow",
        f"{LOG}::test_a_broken_append_is_a_defect",
        Edit("storage/appends.py", "check_appends", "event.seq != seq", "False"),
    ),
    mutant(
        Kind.GAP,
        "what was carried out late is taken for a fence",
        f"{ENGINE}/test_journal.py::test_what_was_carried_out_late_is_not_taken_for_a_fence",
        Edit(JOURNAL, "Journal._append", "fenced if has_failed else []", "[]"),
    ),
    mutant(
        Kind.GAP,
        "the page passes over a gap",
        PAGE,
        Edit("ws_bridge/static/reducer.js", "", "frame.seq > run.cursor + 1", "false"),
    ),
    mutant(
        Kind.GAP,
        "the page shows an event twice",
        PAGE,
        Edit("ws_bridge/static/reducer.js", "", "if (frame.seq <= run.cursor) return state;", ""),
    ),
)

LOG_MUTANTS: Final = (*FENCING, *DELIVERY, *GAP)

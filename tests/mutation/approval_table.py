"""The promises of waiting for a person: who is asked, one answer, exactly the call that was asked about."""

from typing import Final

from tests.mutation.mutants import Edit, Kind, mutant

APPROVALS: Final = "tests/agent_service/engine/test_approvals.py"
WAITING: Final = "tests/storage/test_waiting.py"

RULES: Final = "agent_service/engine/approvals.py"
GATE: Final = "agent_service/engine/approval_gate.py"
SQL: Final = "storage/waiting.py"
MEMORY: Final = "storage/memory_runs.py"

APPROVAL_MUTANTS: Final = (
    mutant(
        Kind.APPROVAL,
        "an unsafe tool asks nobody",
        f"{APPROVALS}::test_the_rules",
        Edit(RULES, "reason_to_ask", "tool.effect is Effect.UNSAFE", "False"),
    ),
    mutant(
        Kind.APPROVAL,
        "a run that asks before each change does not",
        f"{APPROVALS}::test_a_run_can_ask_before_each_change",
        Edit(RULES, "reason_to_ask", "settings.require_approval and", "False and"),
    ),
    mutant(
        Kind.APPROVAL,
        "a tool that cannot say is let through",
        f"{APPROVALS}::test_the_rules[broken]",
        Edit(
            RULES,
            "_tools_own_reason",
            'return f"{tool.name} could not tell whether this call is harmless."',
            'return ""',
        ),
    ),
    mutant(
        Kind.APPROVAL,
        "consent holds for any arguments",
        f"{APPROVALS}::test_other_arguments_under_the_same_id_are_another_question",
        Edit(RULES, "approval_id_of", "(run_id, tool_call_id, tool_name, args)", "(run_id, tool_call_id, tool_name)"),
    ),
    mutant(
        Kind.APPROVAL,
        "a rejected call runs",
        f"{APPROVALS}::test_a_rejected_call_never_begins_and_the_model_hears_why",
        Edit(
            GATE,
            "ApprovalGate._obeyed",
            'raise RefusedError(f"A person rejected this call, so it did not run. They said: {resolved.comment}")',
            "return call.args",
        ),
    ),
    mutant(
        Kind.APPROVAL,
        "edited arguments are not checked",
        f"{APPROVALS}::test_edited_arguments_must_fit_the_tool",
        Edit(RULES, "Approvals._check", "if verdict.edited_args is None:", "if True:"),
    ),
    mutant(
        Kind.APPROVAL,
        "another decision is taken for the same",
        f"{APPROVALS}::test_the_same_decision_twice_is_fine_and_another_one_a_conflict",
        Edit(RULES, "Approvals._same", "resolved.decision is verdict.decision", "True"),
    ),
    mutant(
        Kind.APPROVAL,
        "the wait for a person counts as work",
        f"{APPROVALS}::test_waiting_counts_neither_as_a_lost_worker_nor_against_the_time_of_the_run",
        Edit("agent_service/engine/emitter.py", "RunEmitter.execution_time_ms", " - self.state.waited(now)", ""),
    ),
    mutant(
        Kind.APPROVAL,
        "calls beside a question are broken off",
        f"{APPROVALS}::test_a_call_beside_the_question_ends_first",
        Edit("agent_service/engine/dispatcher.py", "Dispatcher.call", "while self._at_work:", "while False:"),
    ),
    mutant(
        Kind.APPROVAL,
        "whoever goes on after a decision says that it takes over",
        "tests/agent_service/engine/test_run_scenarios.py::test_scenario[resumed_after_a_decision]",
        Edit("agent_service/engine/run.py", "RunState.resume", "if self.attempt > self._told_attempt:", "if True:"),
    ),
    mutant(
        Kind.APPROVAL,
        "SQLite takes an answer wherever the log stands",
        f"{WAITING}::test_an_answer_to_what_the_log_said_before_is_not_taken[sqlite]",
        Edit(
            SQL,
            "Waiting.__init__",
            'runs.c.epoch == bindparam("of_epoch"),\n                runs.c.last_seq',
            "runs.c.last_seq",
        ),
        Edit(SQL, "Waiting.__init__", '                runs.c.last_seq == bindparam("after_seq"),\n', ""),
    ),
    mutant(
        Kind.APPROVAL,
        "PostgreSQL takes an answer that comes too late",
        f"{WAITING}::test_a_question_whose_time_is_over_is_answered_by_time_alone[postgres]",
        Edit(SQL, "Waiting.__init__", "approvals.c.expire_time > now", "approvals.c.expire_time.is_not(None)"),
    ),
    mutant(
        Kind.APPROVAL,
        "memory takes an answer that comes too late",
        f"{WAITING}::test_a_question_whose_time_is_over_is_answered_by_time_alone[memory]",
        Edit(MEMORY, "MemoryRuns._is_open", " and (expire_time <= self._state.now()) is lapsed", ""),
    ),
    mutant(
        Kind.APPROVAL,
        "nobody ends a cancelled run that waits",
        f"{WAITING}::test_a_cancelled_run_is_queued_so_that_a_worker_ends_it[sqlite]",
        Edit(SQL, "status_when_cancelled", "RunStatus.QUEUED", "RunStatus.WAITING_APPROVAL"),
    ),
    mutant(
        Kind.APPROVAL,
        "a run that is to end begins to wait",
        f"{WAITING}::test_a_run_that_is_to_end_does_not_begin_to_wait[sqlite]",
        Edit(SQL, "Waiting.__init__", "runs.c.cancel_reason.is_(None)", "runs.c.id.is_not(None)"),
    ),
)

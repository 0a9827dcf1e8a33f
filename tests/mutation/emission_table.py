"""Each emission of the product, and the test that misses it. The suite is the mission-critical one."""

from collections.abc import Iterator, Mapping
from typing import Final

from tests.mutation.child import SUITE
from tests.mutation.emissions import emission_sites
from tests.mutation.mutants import Edit, Kind, Mutant

ENGINE: Final = "tests/agent_service/engine"
ANALYSIS: Final = f"{SUITE}::test_an_analysis_shows_every_step"
GREETING: Final = f"{SUITE}::test_a_greeting_needs_no_tool"
QUESTION: Final = f"{SUITE}::test_an_unclear_request_is_asked_about"
WAITING: Final = f"{SUITE}::test_a_busy_thread_makes_the_next_message_wait"
STOP: Final = f"{SUITE}::test_stop_ends_a_running_tool_at_once"
FAILURE: Final = f"{SUITE}::test_a_failure_is_an_event_with_advice"
CLUMSY: Final = f"{SUITE}::test_text_before_a_tool_is_taken_back_and_a_large_result_becomes_a_file"
SILENT: Final = f"{SUITE}::test_a_tool_is_never_the_first_that_is_seen"
REWRITTEN: Final = f"{SUITE}::test_an_answer_that_differs_from_its_stream_is_streamed_anew"
APPROVALS: Final = f"{ENGINE}/test_approvals.py"
APPROVAL: Final = f"{SUITE}::test_stop_resolves_a_waiting_approval"
TAKEN_UP: Final = f"{ENGINE}/test_recovery.py::test_a_run_is_taken_up_where_a_crash_left_it"
UNSAFE_CUT: Final = f"{ENGINE}/test_recovery.py::test_a_cancellation_does_not_say_how_an_unsafe_call_ended"
PIPELINE: Final = f"{ENGINE}/test_pipeline.py"
SCENARIO: Final = f"{ENGINE}/test_run_scenarios.py::test_scenario"
LOOP: Final = "tests/agent_service/llm/test_loop.py"
THREADS: Final = f"{ENGINE}/test_runs.py::test_a_thread_is_created_renamed_listed_and_deleted"

PROGRESS: Final = "tests/agent_service/agents/test_told_progress.py"
OPTIONS: Final = f"{PROGRESS}::test_options_are_priced_and_simulated_where_nobody_else_prices"
REPORT: Final = f"{PROGRESS}::test_pricing_simulating_drawing_and_the_pdf_are_told"

NOTICED_BY: Final[Mapping[str, str]] = {
    "agent_service/engine/approval_gate.py::ApprovalGate._ask requested": (
        f"{APPROVALS}::test_a_call_waits_for_consent_and_leaves_its_slot"
    ),
    "agent_service/engine/approval_gate.py::ApprovalGate._ask AgentThinking": (
        f"{APPROVALS}::test_a_thought_comes_before_the_first_question"
    ),
    "agent_service/engine/approvals.py::Approvals._answer events": (
        f"{APPROVALS}::test_a_watcher_sees_each_answer_at_once"
    ),
    "agent_service/engine/attempt.py::Attempts._fail fail(error_id)": FAILURE,
    "agent_service/engine/attempt.py::Attempts._prepare resume()": TAKEN_UP,
    "agent_service/engine/attempt.py::Attempts._run cancel(run.cancel_reason)": (
        f"{ENGINE}/test_recovery.py::test_a_cancellation_survives_a_crash"
    ),
    "agent_service/engine/attempt.py::Attempts._run complete(self._message(run, final))": GREETING,
    "agent_service/engine/attempt.py::Attempts._stopped cancel(job.reason)": STOP,
    "agent_service/engine/dispatcher.py::Dispatcher._call completed": ANALYSIS,
    "agent_service/engine/dispatcher.py::Dispatcher._announce executing": ANALYSIS,
    "agent_service/engine/dispatcher.py::Dispatcher._announce AgentThinking": SILENT,
    "agent_service/engine/dispatcher.py::Dispatcher._context.progress body": ANALYSIS,
    "agent_service/engine/dispatcher.py::Dispatcher.close taken_back": (
        f"{PIPELINE}::test_a_step_that_is_given_up_leaves_no_question_open"
    ),
    "agent_service/engine/dispatcher.py::Dispatcher._end_calls completed": (
        f"{PIPELINE}::test_a_step_that_is_given_up_leaves_no_call_open"
    ),
    "agent_service/engine/artifacts.py::CallArtifacts.save body": CLUMSY,
    "agent_service/engine/emitter.py::RunEmitter.emit stored": GREETING,
    "agent_service/engine/emitter.py::RunEmitter.commit body": ANALYSIS,
    "agent_service/engine/emitter.py::RunEmitter.resume stored": TAKEN_UP,
    "agent_service/engine/emitter.py::RunEmitter._end event": GREETING,
    "agent_service/engine/emitter.py::RunEmitter._end stored[-1]": GREETING,
    "agent_service/engine/journal.py::Journal._announce append.events": (
        f"{ENGINE}/test_journal.py::test_events_are_delivered_once_in_order_and_flush_means_committed"
    ),
    "agent_service/engine/run.py::RunState.resume AgentProgress RESUMED": TAKEN_UP,
    "agent_service/engine/run.py::RunState.resume _close_unsafe(now)": f"{SCENARIO}[resume_with_open_tools]",
    "agent_service/engine/run.py::RunState.complete _close_all('The run ended first.')": (
        f"{SCENARIO}[complete_with_open_tool]"
    ),
    "agent_service/engine/run.py::RunState.complete restart": REWRITTEN,
    "agent_service/engine/run.py::RunState.complete piece": REWRITTEN,
    "agent_service/engine/run.py::RunState.complete final": GREETING,
    "agent_service/engine/run.py::RunState.complete completed": GREETING,
    "agent_service/engine/run.py::RunState.cancel _close_all('The run was cancelled.')": STOP,
    "agent_service/engine/run.py::RunState.cancel completed": STOP,
    "agent_service/engine/run.py::RunState.fail _close_all('The run failed before this ended.')": (
        f"{SCENARIO}[fail_with_open_tool]"
    ),
    "agent_service/engine/run.py::RunState.fail body": FAILURE,
    "agent_service/engine/run.py::RunState._close_all _close_tools(error)": STOP,
    "agent_service/engine/run.py::RunState._close_all _close_unsafe(now)": UNSAFE_CUT,
    "agent_service/engine/run.py::RunState._close_unsafe _close_tools(OUTCOME_UNKNOWN)": (
        f"{SCENARIO}[resume_with_open_tools]"
    ),
    "agent_service/engine/run.py::RunState._close_all _close_approvals(now)": APPROVAL,
    "agent_service/engine/run.py::RunState._close_approvals resolved": APPROVAL,
    "agent_service/engine/run.py::RunState._close_tools ToolCompleted": STOP,
    "agent_service/engine/runs.py::Runs._accept accepted.events": (
        f"{ENGINE}/test_beginnings.py::test_the_database_is_not_asked_about_what_was_just_accepted"
    ),
    "agent_service/engine/runs.py::Runs._announce_thread ThreadChange": (
        f"{ENGINE}/test_runs.py::test_a_new_thread_is_named_after_its_message_and_announced"
    ),
    "agent_service/engine/step.py::RunStepSink.thought body": ANALYSIS,
    "agent_service/engine/step.py::RunStepSink.text body": ANALYSIS,
    "agent_service/engine/step.py::RunStepSink.discard_text body": CLUMSY,
    "agent_service/engine/pipeline.py::Pipeline._tell body": (
        f"{PIPELINE}::test_a_step_that_cannot_be_done_is_left_out_and_the_next_ones_are_told"
    ),
    "agent_service/engine/planning.py::Planner.plan AgentProgress PLANNED": GREETING,
    "agent_service/engine/planning.py::Planner._triage AgentThinking": GREETING,
    "agent_service/engine/planning.py::Planner._triage AgentHandoff": GREETING,
    "agent_service/engine/planning.py::Planner._triage AgentProgress CLASSIFIED": GREETING,
    "agent_service/engine/planning.py::Planner._escalate AgentThinking": (
        f"{PIPELINE}::test_below_the_threshold_a_larger_model_is_asked_once"
    ),
    "agent_service/engine/planning.py::Planner._say body": GREETING,
    "agent_service/engine/supervisor.py::_Answering.answer PartialResult": QUESTION,
    "agent_service/engine/supervisor.py::_Answering._answer_again artifact": (
        f"{ENGINE}/test_answer_cache.py::test_an_answer_with_a_file_is_given_again_only_while_the_file_is_there"
    ),
    "agent_service/engine/supervisor.py::_Answering._run_beside AgentProgress STEP": (
        f"{PIPELINE}::test_a_crash_in_the_middle_of_a_stage_repeats_only_what_was_not_finished"
    ),
    "agent_service/engine/supervisor.py::_Answering._announce AgentHandoff": GREETING,
    "agent_service/engine/supervisor.py::_Answering._announce AgentProgress STEP": GREETING,
    "agent_service/engine/supervisor.py::_Answering._say body": GREETING,
    "agent_service/engine/threads.py::Threads.create ThreadChange CREATED": THREADS,
    "agent_service/engine/threads.py::Threads.rename ThreadChange UPDATED": THREADS,
    "agent_service/engine/threads.py::Threads.delete ThreadChange DELETED": THREADS,
    "agent_service/llm/loop.py::_ShownResponse.end self._text": (
        f"{LOOP}::test_text_after_a_tool_call_is_a_thought_and_never_shown_as_answer"
    ),
    "agent_service/llm/loop.py::_ShownResponse._take_text text": ANALYSIS,
    "agent_service/llm/loop.py::_ShownResponse._take_call self._sink.discard_text": CLUMSY,
    "agent_service/llm/loop.py::_ShownResponse._take_call text": (
        f"{LOOP}::test_text_before_a_tool_call_is_taken_back_and_becomes_a_thought"
    ),
    "agent_service/llm/loop.py::_ShownResponse._show_thought thought": ANALYSIS,
    "agent_service/tools/analysis.py::Workbench.open 'Waiting for other analyses to end'": (
        "tests/agent_service/tools/test_sandbox.py::test_a_person_is_told_what_a_tool_waits_for"
    ),
    "agent_service/tools/cost.py::cost_breakdown 'Columns recognised, pricing'": ANALYSIS,
    "agent_service/tools/usage.py::usage_summary 'Columns recognised, measuring'": ANALYSIS,
    "agent_service/tools/anomalies.py::anomaly_scan 'Columns recognised, looking at every bucket of time'": (
        f"{PROGRESS}::test_a_look_at_the_data_is_told[anomalies]"
    ),
    "agent_service/tools/correlation.py::correlate 'Columns recognised, comparing'": (
        f"{PROGRESS}::test_a_look_at_the_data_is_told[correlation]"
    ),
    "agent_service/tools/duplicates.py::duplicate_prompts 'Columns recognised, looking for the same prompts'": (
        f"{PROGRESS}::test_a_look_at_the_data_is_told[duplicates]"
    ),
    "agent_service/tools/database/analyzer.py::database_analyzer f'Reading the statistics of {target.name}'": (
        f"{PROGRESS}::test_a_look_at_the_data_is_told[database]"
    ),
    "agent_service/tools/optimization/bench.py::ready 'Columns recognised, pricing'": OPTIONS,
    "agent_service/tools/optimization/bench.py::ready 'Priced, simulating'": OPTIONS,
    "agent_service/tools/optimization/combination.py::combine_options "
    "f'{len(decided) + len(undecided)} combinations are simulated'": REPORT,
    "agent_service/tools/reporting/create_report.py::create_report 'Sources checked, drawing'": REPORT,
    "agent_service/tools/reporting/create_report.py::create_report 'Written, making the PDF'": REPORT,
    "agent_service/tools/corpus/changing.py::add_documents f'Reading {name}'": (
        f"{PROGRESS}::test_each_document_that_is_read_is_told"
    ),
    "agent_service/tools/synthetic/tools.py::generate_workload f'{made:,} of {rows:,} rows made'": (
        "tests/agent_service/tools/test_synthetic.py::test_it_tells_how_far_it_is"
    ),
    "agent_service/engine/worker.py::Worker.cancel cancel(reason)": (
        f"{ENGINE}/test_worker.py::test_a_queued_run_is_cancelled_at_once"
    ),
    "storage/acceptance.py::first_events StoredEvent 1": GREETING,
    "storage/acceptance.py::first_events StoredEvent 2": WAITING,
}

BY_HAND: Final[Mapping[str, tuple[Edit, ...]]] = {
    "storage/acceptance.py::first_events StoredEvent 1": (
        Edit("storage/acceptance.py", "first_events", "return (started,)", "return ()"),
    ),
}
"""How an event that gets a name first is taken out."""


def emission_mutants() -> Iterator[Mutant]:
    """Yield one mutant for each emission that the table knows; `test_mutants.py` sees to it that it knows all."""
    for site in emission_sites():
        edits = BY_HAND.get(site.name) or ((site.edit,) if site.edit else ())
        if edits and site.name in NOTICED_BY:
            yield Mutant(f"{site.name} deleted", Kind.EMISSION, edits, (NOTICED_BY[site.name],))

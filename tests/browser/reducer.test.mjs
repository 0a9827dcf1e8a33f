// The page's memory: what it makes of frames in any order, and what it owes the service.

import assert from "node:assert/strict";
import { test } from "node:test";

import { busyThreads, nextFrames, openTurns, reduce, stoppableTurn } from "../../ws_bridge/static/reducer.js";
import {
    NEW,
    NOW,
    RUN,
    THREAD,
    accepted,
    ack,
    established,
    events,
    frame,
    fresh,
    play,
    received,
    sendOwed,
    submitted,
} from "./support.mjs";

const USAGE = {
    input_tokens: 10,
    output_tokens: 5,
    cached_tokens: 0,
    model_requests: 1,
    tool_calls: 1,
    cost_usd: 0.01,
};

/** One of every event type of the contract. */
const WHOLE = events(
    ["agent_started", { agent_id: "a", message: "Taken.", user_message_id: "um" }],
    ["agent_progress", { stage: "queued", queue_position: 2, message: "" }],
    ["agent_thinking", { thought: "Look at the data.", step: 1, total_steps: 2 }],
    ["agent_progress", { stage: "classified", intent: "cost_analysis", confidence: 0.9, message: "" }],
    ["agent_progress", { stage: "planned", planned_steps: [{ agent_name: "data", description: "Measure" }] }],
    ["agent_handoff", { from_agent: "triage", to_agent: "data", reason: "enough data" }],
    ["agent_progress", { stage: "step", message: "Measuring", step: 1, total_steps: 2 }],
    ["approval_requested", { approval_id: "p1", tool_name: "apply_policy", tool_args: { a: 1 }, reason: "unsafe" }],
    ["approval_resolved", { approval_id: "p1", decision: "approved", decided_by: "dev", comment: "" }],
    [
        "tool_executing",
        {
            tool_call_id: "t1",
            tool_name: "cost_breakdown",
            description: "By model",
            tool_args: { by: "model" },
            effect: "read_only",
        },
    ],
    ["agent_progress", { stage: "tool", tool_call_id: "t1", fraction: 0.5, message: "half" }],
    [
        "tool_completed",
        {
            tool_call_id: "t1",
            tool_name: "cost_breakdown",
            status: "success",
            result_summary: "3 models",
            result: { n: 3 },
            execution_time_ms: 12,
        },
    ],
    [
        "artifact_created",
        { artifact_id: "f1", name: "chart.svg", media_type: "image/svg+xml", size_bytes: 9, description: "" },
    ],
    ["agent_progress", { stage: "degraded", message: "No prices for one model." }],
    ["partial_result", { message_id: "m", text: "lost " }],
    ["agent_progress", { stage: "resumed", message: "Another worker.", discard_partial: true }],
    ["partial_result", { message_id: "m", text: "It costs " }],
    ["partial_result", { message_id: "m", text: "**$3**." }],
    [
        "final_response",
        {
            message_id: "m",
            content: "It costs **$3**.",
            source: "computed",
            degraded: true,
            missing_data: ["latency"],
            suggestions: ["And why?"],
            artifact_ids: ["f1"],
        },
    ],
    ["agent_completed", { agent_id: "a", status: "success", execution_time_ms: 1500, usage: USAGE }],
);

test("a run of every event type becomes steps, an answer and its usage", () => {
    const run = play(accepted(), ...WHOLE).runs[RUN];
    assert.deepEqual(
        run.steps.map((step) => step.kind),
        ["thought", "classified", "planned", "handoff", "approval", "tool", "artifact", "degraded", "resumed"],
    );
    assert.equal(run.status, "completed");
    assert.equal(run.cursor, WHOLE.length);
    assert.equal(run.final.content, "It costs **$3**.");
    assert.deepEqual(
        [run.final.missingData, run.final.suggestions, run.final.artifactIds],
        [["latency"], ["And why?"], ["f1"]],
    );
    assert.deepEqual([run.usage, run.executionTimeMs, run.error], [USAGE, 1500, null]);
    const tool = run.steps.find((step) => step.kind === "tool");
    assert.deepEqual(
        [tool.status, tool.summary, tool.result, tool.executionTimeMs, tool.args],
        ["success", "3 models", { n: 3 }, 12, { by: "model" }],
    );
    assert.equal(run.steps.find((step) => step.kind === "approval").status, "approved");
});

test("the state follows the run while it goes", () => {
    const after = (count) => play(accepted(), ...WHOLE.slice(0, count)).runs[RUN];
    assert.deepEqual([after(2).status, after(2).queuePosition], ["queued", 2]);
    assert.deepEqual([after(3).status, after(3).queuePosition], ["running", 0]);
    assert.deepEqual([after(7).activity, after(7).step, after(7).totalSteps], ["Measuring", 1, 2]);
    assert.equal(after(8).status, "waiting_approval");
    assert.equal(after(9).status, "running");
    assert.equal(after(11).steps.at(-1).progress, "half");
    assert.equal(after(15).draft, "lost ");
    assert.equal(after(16).draft, "");
    assert.equal(after(18).draft, "It costs **$3**.");
});

test("events that were seen are ignored, at any place of the run", () => {
    const once = play(accepted(), ...WHOLE);
    for (let at = 0; at < WHOLE.length; at += 1) {
        const again = play(accepted(), ...WHOLE.slice(0, at), ...WHOLE.slice(0, at), ...WHOLE.slice(at), ...WHOLE);
        assert.deepEqual(again.runs[RUN], once.runs[RUN]);
    }
});

test("a gap is not filled with guesses: it asks for the stream from the cursor, once", () => {
    const state = play(accepted(), WHOLE[0], WHOLE[2], WHOLE[3]);
    assert.equal(state.runs[RUN].cursor, 1);
    const { frames, state: asked } = sendOwed(state);
    assert.deepEqual(frames, [{ type: "resume", payload: { run_id: RUN, after_seq: 1 } }]);
    assert.deepEqual(nextFrames(play(asked, WHOLE[4])), []);
    const healed = play(asked, ...WHOLE.slice(1));
    assert.deepEqual(healed.runs[RUN], play(accepted(), ...WHOLE).runs[RUN]);
});

test("the first event of an unknown run in the middle is a gap too", () => {
    const { frames } = sendOwed(play(fresh(), WHOLE[4]));
    assert.deepEqual(frames, [{ type: "resume", payload: { run_id: RUN, after_seq: 0 } }]);
});

test("reconnecting after every event brings the same run", () => {
    const whole = play(accepted(), ...WHOLE);
    for (let at = 1; at < WHOLE.length; at += 1) {
        const cut = play(accepted(), ...WHOLE.slice(0, at), established());
        const { frames, state } = sendOwed(cut);
        assert.deepEqual(frames, [{ type: "resume", payload: { run_id: RUN, after_seq: at } }]);
        assert.deepEqual(play(state, ...WHOLE.slice(at)).runs[RUN], whole.runs[RUN]);
    }
});

test("a finished run is not resumed, and nothing changes it any more", () => {
    const state = play(accepted(), ...WHOLE, established());
    assert.deepEqual(nextFrames(state), []);
});

test("an event type of the future becomes a step", () => {
    const [known, unknown] = events(["agent_started", {}], ["agent_dreaming", { message: "of sheep" }]);
    const step = play(accepted(), known, unknown).runs[RUN].steps[0];
    assert.deepEqual([step.kind, step.type, step.text], ["other", "agent_dreaming", "of sheep"]);
});

test("names of the language are no event types and no frames", () => {
    const [first, odd] = events(["agent_started", {}], ["constructor", {}]);
    assert.equal(play(accepted(), first, odd).runs[RUN].steps[0].kind, "other");
    const state = fresh();
    assert.equal(reduce(state, frame("toString")), state);
});

test("a failure and a cancellation are ends with their own words", () => {
    const error = {
        reason: "MODEL_UNAVAILABLE",
        error_id: "e",
        message: "gone",
        retryable: true,
        recovery_suggestions: ["wait"],
        execution_time_ms: 7,
        usage: USAGE,
    };
    const failed = play(accepted(), ...events(["agent_started"], ["agent_error", error])).runs[RUN];
    assert.equal(failed.status, "failed");
    assert.deepEqual(failed.error, {
        reason: "MODEL_UNAVAILABLE",
        errorId: "e",
        message: "gone",
        retryable: true,
        suggestions: ["wait"],
    });
    const cancelled = play(accepted(), ...events(["agent_started"], ["agent_completed", { status: "cancelled" }])).runs[
        RUN
    ];
    assert.equal(cancelled.status, "cancelled");
});

test("two runs of one thread may interleave", () => {
    const other = events(["agent_started"], ["partial_result", { text: "B" }]).map((event) => ({
        ...event,
        run_id: "run-2",
    }));
    const mine = events(["agent_started"], ["partial_result", { text: "A" }]);
    const state = play(accepted(), submitted("m2"), ack("m2", false, "run-2"), mine[0], other[0], other[1], mine[1]);
    assert.deepEqual([state.runs[RUN].draft, state.runs["run-2"].draft], ["A", "B"]);
    assert.equal(openTurns(state).length, 2);
});

// ── messages on their way ───────────────────────────────────────────────────────────────────────────────────────────

test("a message is shown at once, sent once, and joined with its run by the ack", () => {
    const waiting = play(fresh(), submitted("m1", "hello", [{ file_id: "f", name: "log.csv" }]));
    assert.equal(openTurns(waiting)[0].delivery, "waiting");
    const { frames, state: sent } = sendOwed(waiting);
    assert.deepEqual(frames, [
        { type: "user_message", payload: { content: "hello", message_id: "m1", references: [{ file_id: "f" }] } },
    ]);
    assert.deepEqual(nextFrames(sent), []);
    const state = play(sent, ack("m1"));
    assert.equal(state.open.key, THREAD);
    assert.deepEqual(
        [openTurns(state)[0].delivery, openTurns(state)[0].runId, openTurns(state)[0].key],
        ["accepted", RUN, "m1"],
    );
    assert.deepEqual(
        state.threads.items.map((thread) => [thread.thread_id, thread.title]),
        [[THREAD, "hello"]],
    );
});

test("what was not acknowledged goes out again on the next line, under the same id", () => {
    const { state } = sendOwed(play(fresh(), submitted("m1")));
    const { frames } = sendOwed(play(state, established()));
    assert.deepEqual(
        frames.map((sent) => [sent.type, sent.payload.message_id]),
        [["user_message", "m1"]],
    );
});

test("the ack of a run that was there before asks for its events", () => {
    const { state } = sendOwed(play(fresh(), submitted("m1")));
    assert.deepEqual(nextFrames(play(state, ack("m1", true))), [
        { type: "resume", payload: { run_id: RUN, after_seq: 0 } },
    ]);
});

test("of a conversation without an id only the first message goes out until its ack", () => {
    const { frames, state } = sendOwed(play(fresh(), submitted("m1"), submitted("m2")));
    assert.deepEqual(
        frames.map((sent) => sent.payload.message_id),
        ["m1"],
    );
    assert.deepEqual(nextFrames(state), []);
    const next = nextFrames(play(state, ack("m1")));
    assert.deepEqual(
        next.map((sent) => [sent.payload.message_id, sent.payload.thread_id]),
        [["m2", THREAD]],
    );
});

test("a refused message keeps its words and goes out again when asked", () => {
    const { state } = sendOwed(play(fresh(), submitted("m1")));
    const refused = play(
        state,
        frame("error", {
            code: "RATE_LIMITED",
            message: "slow",
            retryable: true,
            retry_after_ms: 1200,
            message_id: "m1",
            request_type: "user_message",
        }),
    );
    const turn = openTurns(refused)[0];
    assert.deepEqual([turn.delivery, turn.error.code, turn.error.retryAtMs], ["refused", "RATE_LIMITED", NOW + 1200]);
    const { frames } = sendOwed(play(refused, { type: "message_retried", messageId: "m1" }));
    assert.equal(frames[0].payload.message_id, "m1");
    assert.deepEqual(openTurns(play(refused, { type: "message_discarded", messageId: "m1" })), []);
});

test("stop: withdrawn before it is sent, by message id before the ack, by run id after it", () => {
    const stop = { type: "stop_requested", key: "m1" };
    const waiting = play(fresh(), submitted("m1"));
    assert.deepEqual(openTurns(play(waiting, stop)), []);
    const { state: sent } = sendOwed(waiting);
    assert.deepEqual(nextFrames(play(sent, stop)), [{ type: "stop_agent", payload: { message_id: "m1" } }]);
    const { frames, state } = sendOwed(play(accepted(), stop));
    assert.deepEqual(frames, [{ type: "stop_agent", payload: { run_id: RUN } }]);
    assert.equal(stoppableTurn(state), null);
    assert.deepEqual(
        nextFrames(play(state, established())).map((owed) => owed.type),
        ["resume", "stop_agent"],
    );
    const ended = play(
        state,
        ...events(["agent_started"], ["agent_completed", { status: "cancelled" }]),
        established(),
    );
    assert.deepEqual(nextFrames(ended), []);
});

test("a refused sign-in is said once however often the page tries, and is over when the line is live", () => {
    const full = (error_id) =>
        frame("error", {
            code: "TOO_MANY_CONNECTIONS",
            message: "3 are open.",
            request_type: "authenticate",
            error_id,
        });
    const other = frame("error", { code: "INTERNAL", message: "Something else.", request_type: "ping", error_id: "x" });
    const refused = play(fresh(), full("e1"), other, full("e2"));
    assert.deepEqual(
        refused.notices.map((notice) => notice.message),
        ["Something else.", "3 are open."],
    );
    assert.deepEqual(
        play(refused, established()).notices.map((notice) => notice.message),
        ["Something else."],
    );
});

test("an error that belongs to no message is a notice; late answers to stop and pong are none", () => {
    const error = (payload) => frame("error", { code: "NOT_FOUND", message: "gone", error_id: "e1", ...payload });
    assert.deepEqual(
        play(fresh(), error({})).notices.map((notice) => notice.message),
        ["gone"],
    );
    assert.deepEqual(play(fresh(), error({ request_type: "stop_agent", run_id: RUN })).notices, []);
    assert.deepEqual(play(fresh(), error({ request_type: "pong" })).notices, []);
});

test("a refused resume: a shorter log starts over, a missing run fails, the rest can be asked again", () => {
    const at = play(accepted(), ...WHOLE.slice(0, 5));
    const refused = (code, retryable) =>
        play(at, frame("error", { code, retryable, message: "no", run_id: RUN, request_type: "resume" }));
    assert.deepEqual(nextFrames(refused("CURSOR_AHEAD", false)), [
        { type: "resume", payload: { run_id: RUN, after_seq: 0 } },
    ]);
    assert.equal(refused("NOT_FOUND", false).runs[RUN].status, "failed");
    const later = refused("TOO_MANY_RUNS", true);
    assert.equal(later.runs[RUN].loadError, "no");
    assert.equal(nextFrames(play(later, { type: "resume_requested", runId: RUN })).length, 1);
});

// ── threads, reloads, other tabs ────────────────────────────────────────────────────────────────────────────────────

const message = (runId, role, content, rest = {}) => ({
    message_id: `${runId}-${role}`,
    thread_id: THREAD,
    run_id: runId,
    role,
    content,
    create_time: "2026-11-21T09:00:00Z",
    superseded_by_run_id: "",
    ...rest,
});
const loaded = (messages, runs, startedAtMs = NOW) => ({
    type: "messages_loaded",
    threadId: THREAD,
    messages,
    runs,
    startedAtMs,
});
const row = (runId, status) => ({
    run_id: runId,
    thread_id: THREAD,
    status,
    last_seq: 9,
    create_time: "2026-11-21T09:00:00Z",
});

test("a reload in mid-run: stored turns come back, and the open run from its first event", () => {
    const opened = play(fresh(), { type: "thread_opened", key: THREAD });
    assert.equal(opened.open.status, "loading");
    const messages = [
        message("r0", "user", "first"),
        message("r0", "assistant", "answer"),
        message(RUN, "user", "second"),
    ];
    const state = play(opened, loaded(messages, [row(RUN, "running"), row("r0", "completed")]));
    assert.deepEqual(
        openTurns(state).map((turn) => [turn.content, turn.answer]),
        [
            ["first", "answer"],
            ["second", ""],
        ],
    );
    const { frames, state: asked } = sendOwed(state);
    assert.deepEqual(frames, [{ type: "resume", payload: { run_id: RUN, after_seq: 0 } }]);
    assert.equal(play(asked, ...WHOLE).runs[RUN].final.content, "It costs **$3**.");
});

test("steps of a finished run load on demand and leave its state alone", () => {
    const opened = play(fresh(), { type: "thread_opened", key: THREAD });
    const state = play(
        opened,
        loaded([message(RUN, "user", "q"), message(RUN, "assistant", "a")], [row(RUN, "completed")]),
    );
    assert.deepEqual(nextFrames(state), []);
    const half = play(state, { type: "events_loaded", runId: RUN, events: WHOLE.slice(0, 8), nowMs: NOW });
    assert.equal(half.runs[RUN].status, "completed");
    const full = play(half, { type: "events_loaded", runId: RUN, events: WHOLE, nowMs: NOW });
    assert.equal(full.runs[RUN].steps.length, 9);
});

test("a snapshot does not lose what is newer than it, and drops what was superseded", () => {
    const state = play(accepted(), ...WHOLE); // accepted at NOW
    const older = play(state, submitted("m2"), loaded([], [], NOW - 5));
    assert.deepEqual(
        openTurns(older).map((turn) => turn.key),
        ["m1", "m2"],
    );
    const newer = play(
        state,
        submitted("m2"),
        loaded([message(RUN, "user", "q", { superseded_by_run_id: "r9" })], [], NOW + 5),
    );
    assert.deepEqual(
        openTurns(newer).map((turn) => turn.key),
        ["m2"],
    );
});

test("runs that began elsewhere are followed, and their thread is read again", () => {
    const opened = play(
        fresh(),
        { type: "thread_opened", key: THREAD },
        loaded([], []),
        established([row(RUN, "running")]),
    );
    assert.deepEqual(nextFrames(opened), [{ type: "resume", payload: { run_id: RUN, after_seq: 0 } }]);
    assert.deepEqual([...busyThreads(opened)], [THREAD]);
    assert.equal(play(opened, WHOLE[0]).stale, THREAD);
    assert.equal(play(opened, { type: "thread_opened", key: "other" }, WHOLE[0]).stale, null);
});

test("a run that ended while nobody told us is streamed to its end", () => {
    const cut = play(accepted(), ...WHOLE.slice(0, 4));
    const state = play(cut, { type: "runs_loaded", runs: [row(RUN, "completed")] });
    assert.deepEqual(nextFrames(state), [{ type: "resume", payload: { run_id: RUN, after_seq: 4 } }]);
});

test("another conversation on the page: what is at work stays, what can be read again goes", () => {
    const working = play(accepted(), ...WHOLE.slice(0, 4), { type: "thread_opened", key: "other" });
    assert.deepEqual(Object.keys(working.runs), [RUN]);
    assert.equal(play(working, WHOLE[4]).runs[RUN].cursor, 5);
    const done = play(accepted(), ...WHOLE, { type: "thread_opened", key: "other" });
    assert.deepEqual([done.runs, done.turns], [{}, {}]);
});

test("threads: created, updated, searched, deleted", () => {
    const thread = (id, time, title = id) => ({ thread_id: id, title, create_time: time, update_time: time });
    const ids = (state) => state.threads.items.map((item) => item.thread_id);
    const state = play(
        fresh(),
        { type: "threads_loaded", query: "", threads: [thread("a", "2026-01-01T00:00:00Z")], nextPageToken: "p" },
        frame("thread_created", thread("b", "2026-01-02T00:00:00Z")),
        frame("thread_updated", thread("a", "2026-01-03T00:00:00Z", "renamed")),
    );
    assert.deepEqual(
        [ids(state), state.threads.items[0].title, state.threads.nextPageToken],
        [["a", "b"], "renamed", "p"],
    );
    const searched = play(state, { type: "threads_searched", query: "x" });
    assert.equal(play(searched, { type: "threads_loaded", query: "", threads: [], nextPageToken: "" }), searched);
    assert.deepEqual(
        ids(
            play(
                searched,
                { type: "threads_loaded", query: "x", threads: [], nextPageToken: "" },
                frame("thread_created", thread("c", "")),
            ),
        ),
        [],
    );
    const gone = play(accepted(), frame("thread_deleted", { thread_id: THREAD }));
    assert.deepEqual([gone.open.status, gone.runs, ids(gone)], ["deleted", {}, []]);
});

test("the service's words about itself come and go", () => {
    const degraded = play(fresh(), frame("server_status", { status: "degraded", message: "The service is away." }));
    assert.equal(degraded.serviceNotice, "The service is away.");
    assert.equal(play(degraded, frame("server_status", { status: "recovered", message: "Back." })).serviceNotice, "");
    assert.equal(play(degraded, established()).clockOffsetMs, 2000);
});

test("frames and actions never change the state in place", () => {
    const freeze = (value) => {
        if (value && typeof value === "object" && !Object.isFrozen(value))
            Object.values(Object.freeze(value)).forEach(freeze);
        return value;
    };
    let state = freeze(fresh());
    const actions = [
        submitted("m1"),
        { type: "frame_sent", frame: { type: "user_message", payload: { message_id: "m1" } } },
        ack("m1"),
        ...WHOLE.map(received),
        established(),
        { type: "thread_opened", key: NEW },
    ];
    for (const action of actions) state = freeze(reduce(state, freeze(action)));
    assert.equal(state.open.key, NEW);
});

test("a decision on its way cannot be made twice, and one that was refused can be made again", () => {
    const waiting = play(accepted(), ...WHOLE.slice(0, 8));
    const approval = (state) => state.runs[RUN].steps.find((step) => step.kind === "approval").status;
    const sent = reduce(waiting, { type: "approval_decided", runId: RUN, approvalId: "p1" });
    assert.equal(approval(sent), "deciding");
    const payload = { code: "RUN_CONFLICT", message: "Decided.", run_id: RUN, request_type: "resolve_approval" };
    const refused = play(sent, frame("error", payload));
    assert.equal(approval(refused), "waiting");
    assert.equal(refused.notices.at(-1).message, "Decided.");
});

test("a message may have settings of its own", () => {
    const action = { type: "message_submitted", messageId: "m9", content: "x", references: [], time: null };
    const state = reduce(fresh(), { ...action, settings: { use_cache: false } });
    assert.deepEqual(nextFrames(state)[0].payload, { content: "x", message_id: "m9", settings: { use_cache: false } });
});

// The page's whole memory, as one pure function: (state, action) → state. No DOM, no clock, no network, no random:
// times and ids come with the action. `nextFrames` says what the state still owes the service; app.js sends it.
//
// Actions are {type: "frame", frame, nowMs} for whatever the socket brings, and the page's own, listed in ACTIONS.

import { deciding, foldEvent, isOpen, newRun, undecided } from "./run_state.js";
import {
  adoptThread,
  allTurns,
  appendTurn,
  findTurn,
  isNewThread,
  mergeMessages,
  newTurn,
  patchTurns,
  removeTurn,
} from "./turns.js";
import { initialThreads, removeThread, threadsAction, touchThread, upsertThread } from "./thread_list.js";

/** Bytes of one plain frame, until the service advertises its own limit. */
const DEFAULT_MAX_FRAME_BYTES = 8192;
const MAX_NOTICES = 4;
const TITLE_LENGTH = 60;
const LINE_NOTICE = "line:"; // ids of notices about the line itself begin with this

export function initialState(newKey) {
  return {
    connection: { phase: "connecting", retryAtMs: null, reason: "" },
    userId: "",
    maxFrameBytes: DEFAULT_MAX_FRAME_BYTES,
    clockOffsetMs: 0, // service's clock minus this page's
    serviceNotice: "", // "degraded, because …" from server_status
    threads: initialThreads(),
    open: { key: newKey, status: "ready", error: "" }, // the conversation on the page: loading, ready, failed
    turns: {},
    runs: {},
    attachments: [], // uploads that wait on the composer
    files: {}, // file_id → name, for chips of earlier messages
    notices: [],
    stale: null, // id of the open thread when it changed elsewhere and should be read again
  };
}

export function reduce(state, action) {
  if (action.type === "frame") return frameReceived(state, action.frame, action.nowMs);
  if (Object.hasOwn(ACTIONS, action.type)) return ACTIONS[action.type](state, action);
  const threads = threadsAction(state.threads, action);
  return threads === state.threads ? state : { ...state, threads };
}

// ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function frameReceived(state, frame, nowMs) {
  if (Number.isInteger(frame.seq) && frame.run_id) return eventReceived(state, frame);
  if (!Object.hasOwn(FRAME_HANDLERS, frame.type)) return state;
  return FRAME_HANDLERS[frame.type](state, frame.payload ?? {}, nowMs, frame);
}

/** One event of a run: applied if it is the next one, ignored if already seen, a reason to resume if one is missing. */
function eventReceived(state, frame) {
  const run = state.runs[frame.run_id] ?? newRun(frame.run_id, frame.thread_id);
  if (frame.seq <= run.cursor) return state;
  if (frame.seq > run.cursor + 1) {
    return run.resume === "asked" ? state : withRun(state, { ...run, resume: "wanted" });
  }
  const isUnknown = frame.thread_id === state.open.key && !findTurn(state.turns, (turn) => turn.runId === frame.run_id);
  // A run that another tab or program began: its message is in the thread, so the thread is read again.
  return { ...withRun(state, foldEvent(run, frame)), stale: isUnknown ? frame.thread_id : state.stale };
}

/** What a frame that is no event does to the page, by the frame's type. */
export const FRAME_HANDLERS = {
  connection_established(state, payload, nowMs) {
    const runs = { ...state.runs };
    for (const [id, run] of Object.entries(runs)) if (isOpen(run)) runs[id] = { ...run, resume: "wanted" };
    for (const active of payload.active_runs ?? []) {
      runs[active.run_id] ??= { ...newRun(active.run_id, active.thread_id, active.status), resume: "wanted" };
    }
    return {
      ...state,
      runs,
      turns: patchTurns(state.turns, needsRepeating, (turn) => ({
        delivery: turn.delivery === "sent" ? "waiting" : turn.delivery,
        stop: turn.stop === "asked" ? "wanted" : turn.stop,
      })),
      userId: payload.user_id ?? "",
      maxFrameBytes: payload.max_frame_bytes || DEFAULT_MAX_FRAME_BYTES,
      clockOffsetMs: payload.server_time ? Date.parse(payload.server_time) - nowMs : 0,
      serviceNotice: "",
      notices: state.notices.filter((notice) => !notice.id.startsWith(LINE_NOTICE)), // what kept us out is over
    };
  },

  ack(state, payload, nowMs) {
    const found = findTurn(state.turns, (turn) => turn.clientMessageId === payload.message_id);
    if (!found) return state;
    const run = state.runs[payload.run_id] ?? newRun(payload.run_id, payload.thread_id);
    const isNew = isNewThread(found.threadKey);
    // Attached to a run that was there before: its events may lie behind us, so ask for them.
    const resume = payload.already_existed === true && isOpen(run) ? "wanted" : run.resume;
    const accepted = { delivery: "accepted", runId: payload.run_id, acceptedAtMs: nowMs, error: null };
    let turns = removeTurn(state.turns, (turn) => turn.runId === payload.run_id && turn !== found.turn);
    turns = patchTurns(turns, (turn) => turn.key === found.turn.key, accepted);
    if (isNew) turns = adoptThread(turns, found.threadKey, payload.thread_id);
    const time = new Date(nowMs + state.clockOffsetMs).toISOString();
    const title = shortTitle(found.turn.content);
    return {
      ...withRun(state, { ...run, resume }),
      turns,
      open: state.open.key === found.threadKey ? { ...state.open, key: payload.thread_id } : state.open,
      threads: touchThread(state.threads, {
        thread_id: payload.thread_id,
        title,
        create_time: time,
        update_time: time,
      }),
    };
  },

  error(state, payload, nowMs) {
    const problem = {
      code: payload.code ?? "INTERNAL",
      message: payload.message ?? "",
      retryable: payload.retryable === true,
      retryAtMs: payload.retry_after_ms ? nowMs + payload.retry_after_ms : 0,
      violations: payload.violations ?? [],
      errorId: payload.error_id ?? "",
    };
    if (payload.request_type === "pong") return state; // the contract leaves a client's pong optional
    const refused = (turn) => turn.clientMessageId === payload.message_id && turn.delivery !== "accepted";
    if (payload.message_id && payload.request_type !== "stop_agent" && findTurn(state.turns, refused)) {
      return { ...state, turns: patchTurns(state.turns, refused, { delivery: "refused", error: problem, stop: "no" }) };
    }
    if (payload.request_type === "resume" && state.runs[payload.run_id]) {
      return withRun(state, resumeRefused(state.runs[payload.run_id], problem));
    }
    if (payload.request_type === "resolve_approval" && state.runs[payload.run_id]) {
      // The decision was not taken: the question stands again, and the notice says why.
      state = withRun(state, undecided(state.runs[payload.run_id]));
    }
    if (payload.request_type === "stop_agent" && problem.code === "NOT_FOUND") return state; // it ended meanwhile
    // Right before a close: however often the page tries again, it is said once.
    const isLine = !payload.run_id && (payload.request_type ?? "authenticate") === "authenticate";
    const id = isLine ? `${LINE_NOTICE}${problem.message}` : problem.errorId || `${problem.code}:${nowMs}`;
    return withNotice(state, { id, ...problem });
  },

  thread_created: (state, payload) => ({ ...state, threads: upsertThread(state.threads, payload.thread ?? payload) }),

  thread_updated(state, payload) {
    const thread = payload.thread ?? payload;
    const isElsewhere = thread.thread_id === state.open.key && !hasOpenRun(state, thread.thread_id);
    return {
      ...state,
      threads: upsertThread(state.threads, thread),
      stale: isElsewhere ? thread.thread_id : state.stale,
    };
  },

  thread_deleted: (state, payload, _nowMs, frame) =>
    dropThread(state, payload.thread_id ?? payload.thread?.thread_id ?? frame.thread_id),

  server_status: (state, payload) => ({
    ...state,
    serviceNotice: payload.status === "recovered" ? "" : (payload.message ?? ""),
  }),
};

/** A title until the service has one. */
const shortTitle = (text) => (text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH).trimEnd()}…` : text);

const needsRepeating = (turn) => turn.delivery === "sent" || turn.stop === "asked";

/** The log is shorter than our cursor (it was restored from a backup): start over. Otherwise the run is gone. */
function resumeRefused(run, problem) {
  if (problem.code === "CURSOR_AHEAD") return { ...newRun(run.runId, run.threadId, run.status), resume: "wanted" };
  if (problem.retryable) return { ...run, resume: "no", loadError: problem.message };
  return { ...run, status: "failed", resume: "no", error: { reason: problem.code, suggestions: [], ...problem } };
}

// ── what the page does ──────────────────────────────────────────────────────────────────────────────────────────────

const ACTIONS = {
  connection_changed: (state, { connection }) => ({ ...state, connection }),

  /** The user sent a message to the open conversation. It is shown at once and goes out when the line allows. */
  message_submitted(state, { messageId, content, references, settings = null, time }) {
    const fields = { clientMessageId: messageId, content, references, settings, createTime: time };
    const turn = newTurn({ ...fields, delivery: "waiting" });
    return {
      ...state,
      turns: appendTurn(state.turns, state.open.key, turn),
      attachments: state.attachments.filter((item) => item.status === "uploading"),
    };
  },

  /** A refused message goes out again, under the same id: the service makes at most one run of it. */
  message_retried: (state, { messageId }) => ({
    ...state,
    turns: patchTurns(state.turns, (turn) => turn.clientMessageId === messageId && turn.delivery === "refused", {
      delivery: "waiting",
      error: null,
    }),
  }),

  message_discarded: (state, { messageId }) => ({
    ...state,
    turns: removeTurn(state.turns, (turn) => turn.clientMessageId === messageId && turn.delivery === "refused"),
  }),

  /** Messages that an earlier life of this page could not hand over. */
  messages_restored: (state, { entries }) =>
    entries.reduce(
      (next, { threadKey, turn }) => ({
        ...next,
        turns: appendTurn(next.turns, threadKey, { ...turn, delivery: "waiting" }),
      }),
      state,
    ),

  /** Not yet sent: withdrawn. On its way, queued or at work: asked to stop. */
  stop_requested(state, { key }) {
    const withdrawn = (turn) => turn.key === key && turn.delivery === "waiting" && turn.stop === "no";
    if (findTurn(state.turns, withdrawn)) return { ...state, turns: removeTurn(state.turns, withdrawn) };
    return { ...state, turns: patchTurns(state.turns, (turn) => turn.key === key, { stop: "wanted" }) };
  },

  /** A frame of `nextFrames` was handed to the socket. */
  frame_sent(state, { frame }) {
    const { run_id: runId, message_id: messageId } = frame.payload;
    const mine = (turn) => (runId ? turn.runId === runId : turn.clientMessageId === messageId);
    if (frame.type === "user_message") return { ...state, turns: patchTurns(state.turns, mine, { delivery: "sent" }) };
    if (frame.type === "stop_agent") return { ...state, turns: patchTurns(state.turns, mine, { stop: "asked" }) };
    const run = frame.type === "resume" ? state.runs[runId] : undefined;
    return run ? withRun(state, { ...run, resume: "asked" }) : state;
  },

  /** Another conversation on the page. What can be read again is forgotten; what is under way is kept. */
  thread_opened(state, { key }) {
    const keeps = (turn) => turn.delivery !== "accepted" || (turn.runId && isOpen(state.runs[turn.runId] ?? {}));
    const turns = {};
    for (const [threadKey, list] of Object.entries(state.turns)) {
      const kept = threadKey === key ? list : list.filter(keeps);
      if (kept.length) turns[threadKey] = kept;
    }
    const shown = new Set(allTurns(turns).map((turn) => turn.runId));
    const runs = Object.fromEntries(Object.entries(state.runs).filter(([id, run]) => shown.has(id) || isOpen(run)));
    const status = isNewThread(key) ? "ready" : "loading";
    return { ...state, turns, runs, open: { key, status, error: "" }, stale: null };
  },

  /** The open thread as the service stores it. `startedAtMs`: when it was asked for, by this page's clock. */
  messages_loaded(state, { threadId, messages, runs, startedAtMs }) {
    const { runs: nextRuns } = ACTIONS.runs_loaded(state, { runs });
    const openRun = (runId) => runId !== null && isOpen(nextRuns[runId] ?? {});
    const turns = mergeMessages(state.turns[threadId] ?? [], messages, openRun, startedAtMs);
    const open = state.open.key === threadId ? { ...state.open, status: "ready", error: "" } : state.open;
    return { ...state, runs: nextRuns, turns: { ...state.turns, [threadId]: turns }, open };
  },

  /** The thread that changed elsewhere is being read again. */
  refresh_started: (state) => ({ ...state, stale: null }),

  /** The state of the open thread's runs alone: nothing but they changed. */
  runs_loaded(state, { runs }) {
    const nextRuns = { ...state.runs };
    for (const item of runs) nextRuns[item.run_id] = mergeRun(nextRuns[item.run_id], item);
    return { ...state, runs: nextRuns };
  },

  /** A person decided about a tool call; the run's own event says what came of it. */
  approval_decided: (state, { runId, approvalId }) =>
    state.runs[runId] ? withRun(state, deciding(state.runs[runId], approvalId)) : state,

  /** A person asks for a stream that was refused. */
  resume_requested: (state, { runId }) =>
    state.runs[runId] ? withRun(state, { ...state.runs[runId], resume: "wanted", loadError: null }) : state,

  messages_failed: (state, { threadId, message, isGone = false }) =>
    state.open.key === threadId
      ? { ...state, open: { ...state.open, status: isGone ? "gone" : "failed", error: message } }
      : state,

  events_loading: (state, { runId }) =>
    state.runs[runId] ? withRun(state, { ...state.runs[runId], loading: true, loadError: null }) : state,

  events_loaded(state, { runId, events, nowMs }) {
    const next = events.reduce((folded, frame) => frameReceived(folded, frame, nowMs), state);
    return next.runs[runId] ? withRun(next, { ...next.runs[runId], loading: false }) : next;
  },

  events_failed: (state, { runId, message }) =>
    state.runs[runId] ? withRun(state, { ...state.runs[runId], loading: false, loadError: message }) : state,

  thread_removed: (state, { threadId }) => dropThread(state, threadId),

  attachment_added: (state, { attachment }) => ({ ...state, attachments: [...state.attachments, attachment] }),

  attachment_changed: (state, { id, patch }) => ({
    ...state,
    attachments: state.attachments.map((item) => (item.id === id ? { ...item, ...patch } : item)),
    files: patch.fileId ? { ...state.files, [patch.fileId]: patch.name } : state.files,
  }),

  attachment_removed: (state, { id }) => ({
    ...state,
    attachments: state.attachments.filter((item) => item.id !== id),
  }),

  files_loaded: (state, { files }) => ({
    ...state,
    files: { ...state.files, ...Object.fromEntries(files.map((file) => [file.file_id, file.name])) },
  }),

  notice_added: (state, { notice }) => withNotice(state, notice),
  notice_dismissed: (state, { id }) => ({ ...state, notices: state.notices.filter((notice) => notice.id !== id) }),
};

function mergeRun(run, item) {
  const known = run ?? newRun(item.run_id, item.thread_id, item.status);
  const merged = { ...known, startedAt: known.startedAt ?? item.create_time ?? null };
  // At work, or ended while this page was not told: the stream from the cursor brings the rest.
  const isBehind = run !== undefined && isOpen(run) && !isOpen({ status: item.status });
  if (isBehind || (run === undefined && isOpen(merged))) return { ...merged, resume: "wanted" };
  return merged;
}

function dropThread(state, threadId) {
  const { [threadId]: _turns, ...turns } = state.turns;
  const runs = Object.fromEntries(Object.entries(state.runs).filter(([, run]) => run.threadId !== threadId));
  const open = state.open.key === threadId ? { key: threadId, status: "deleted", error: "" } : state.open;
  return { ...state, turns, runs, open, threads: removeThread(state.threads, threadId) };
}

const withRun = (state, run) => ({ ...state, runs: { ...state.runs, [run.runId]: run } });

function withNotice(state, notice) {
  const others = state.notices.filter((item) => item.id !== notice.id);
  return { ...state, notices: [...others, notice].slice(-MAX_NOTICES) };
}

const hasOpenRun = (state, threadId) =>
  Object.values(state.runs).some((run) => run.threadId === threadId && isOpen(run));

// ── questions to the state ──────────────────────────────────────────────────────────────────────────────────────────

/** The turns of the open conversation, in order. */
export const openTurns = (state) => state.turns[state.open.key] ?? [];

/** The first turn of the open conversation that can still be stopped, or null. */
export function stoppableTurn(state) {
  const isActive = (turn) =>
    turn.stop === "no" &&
    (turn.delivery === "waiting" || turn.delivery === "sent" || isOpen(state.runs[turn.runId] ?? {}));
  return openTurns(state).find(isActive) ?? null;
}

/** Ids of threads with a run at work or waiting. */
export const busyThreads = (state) =>
  new Set(
    Object.values(state.runs)
      .filter(isOpen)
      .map((run) => run.threadId),
  );

/** The frame of a message, as it goes over the wire. */
export function messageFrame(turn, threadKey) {
  const payload = { content: turn.content, message_id: turn.clientMessageId };
  if (!isNewThread(threadKey)) payload.thread_id = threadKey;
  if (turn.settings) payload.settings = turn.settings;
  if (turn.references.length) payload.references = turn.references.map(({ file_id }) => ({ file_id }));
  return { type: "user_message", payload };
}

/**
 * What the state owes the service over a live line, in the order in which it must be sent. Of a conversation that has
 * no id yet only the first message goes out: the next ones wait for its `ack`, else each would found a thread.
 */
export function nextFrames(state) {
  const frames = [];
  for (const [threadKey, list] of Object.entries(state.turns)) {
    const waiting = list.filter((turn) => turn.delivery === "waiting");
    const isFounding = isNewThread(threadKey);
    const isFounded = isFounding && list.some((turn) => turn.delivery === "sent");
    const ready = isFounded ? [] : isFounding ? waiting.slice(0, 1) : waiting;
    frames.push(...ready.map((turn) => messageFrame(turn, threadKey)));
  }
  for (const run of Object.values(state.runs)) {
    if (run.resume === "wanted") {
      frames.push({ type: "resume", payload: { run_id: run.runId, after_seq: run.cursor } });
    }
  }
  for (const turn of allTurns(state.turns)) {
    if (turn.stop !== "wanted" || (turn.runId && !isOpen(state.runs[turn.runId] ?? {}))) continue;
    const target = turn.runId ? { run_id: turn.runId } : { message_id: turn.clientMessageId };
    frames.push({ type: "stop_agent", payload: target });
  }
  return frames;
}

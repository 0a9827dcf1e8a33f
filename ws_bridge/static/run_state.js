// One run, folded from its events. Pure: no DOM, no clock, no network.
//
// The caller (reducer.js) guarantees the order: `foldEvent` is only called with the event that follows the run's
// cursor. Every event type of the contract has a handler here; a type that this page does not know yet becomes a
// plain step, so that a newer service never breaks an older page.

const OPEN_STATUSES = new Set(["queued", "running", "waiting_approval"]);

/** True while the run can still produce events. */
export const isOpen = (run) => OPEN_STATUSES.has(run.status);

/**
 * A run before its first event. `cursor` is the last seq that was applied, exclusive like every cursor of the contract.
 * `resume` is "wanted" when the stream must be (re)started from the cursor, "asked" once that was sent.
 */
export function newRun(runId, threadId, status = "queued") {
  return {
    runId,
    threadId,
    status,
    cursor: 0,
    attempt: 0,
    resume: "no",
    loading: false, // finished runs: their log is being fetched on demand
    loadError: null,
    message: "",
    userMessageId: null,
    startedAt: null, // RFC 3339, the service's clock
    finishedAt: null,
    agentName: "",
    activity: "", // what it does right now, in words
    queuePosition: 0,
    step: 0,
    totalSteps: 0,
    fraction: 0,
    steps: [],
    draft: "", // the streamed answer so far
    final: null, // {content, source, degraded, missingData, suggestions, artifactIds}
    artifacts: [],
    error: null, // {reason, errorId, message, retryable, suggestions}
    usage: null,
    executionTimeMs: 0,
  };
}

/** Applies the event after the cursor. A finished run stays as it is: its terminal event is the last, for ever. */
export function foldEvent(run, frame) {
  const handler = Object.hasOwn(EVENT_HANDLERS, frame.type) ? EVENT_HANDLERS[frame.type] : otherEvent;
  const next = handler(run, frame.payload ?? {}, frame);
  return {
    ...next,
    cursor: frame.seq,
    attempt: frame.attempt ?? run.attempt,
    agentName: frame.agent_name || run.agentName,
    resume: "no",
  };
}

/** What an event does to its run, by the event's type: every type of the contract. */
export const EVENT_HANDLERS = {
  agent_started: (run, payload, frame) => ({
    ...run,
    message: payload.message ?? "",
    userMessageId: payload.user_message_id || null,
    startedAt: frame.timestamp ?? null,
  }),

  agent_progress: progress,

  agent_thinking: (run, payload, frame) =>
    addStep(working(run, payload), frame, { kind: "thought", text: payload.thought ?? "" }),

  agent_handoff: (run, payload, frame) =>
    addStep({ ...working(run, {}), activity: "" }, frame, {
      kind: "handoff",
      from: payload.from_agent ?? "",
      to: payload.to_agent ?? "",
      text: payload.reason ?? "",
    }),

  tool_executing: (run, payload, frame) =>
    addStep({ ...working(run, {}), activity: payload.description || payload.tool_name || "" }, frame, {
      kind: "tool",
      id: toolId(payload.tool_call_id),
      toolName: payload.tool_name ?? "",
      text: payload.description ?? "",
      args: payload.tool_args ?? null,
      effect: payload.effect ?? "",
      status: "running",
      progress: "",
      fraction: 0,
      summary: "",
      result: null,
      artifactId: "",
      error: "",
      executionTimeMs: null,
    }),

  tool_completed: (run, payload) =>
    patchStep(run, toolId(payload.tool_call_id), {
      status: payload.status ?? "success",
      summary: payload.result_summary ?? "",
      result: payload.result ?? null,
      artifactId: payload.artifact_id ?? "",
      error: errorText(payload.error),
      executionTimeMs: payload.execution_time_ms ?? 0,
      progress: "",
    }),

  partial_result: (run, payload) => ({ ...working(run, {}), activity: "", draft: run.draft + (payload.text ?? "") }),

  artifact_created: (run, payload, frame) => {
    const artifact = {
      artifactId: payload.artifact_id ?? "",
      name: payload.name ?? "",
      mediaType: payload.media_type ?? "",
      sizeBytes: payload.size_bytes ?? 0,
      text: payload.description ?? "",
    };
    return addStep({ ...run, artifacts: [...run.artifacts, artifact] }, frame, { kind: "artifact", ...artifact });
  },

  approval_requested: (run, payload, frame) =>
    addStep(withStatus(run, "waiting_approval"), frame, {
      kind: "approval",
      id: approvalId(payload.approval_id),
      approvalId: payload.approval_id ?? "",
      toolName: payload.tool_name ?? "",
      args: payload.tool_args ?? null,
      text: payload.reason ?? "",
      expireTime: payload.expire_time ?? null,
      status: "waiting",
      decidedBy: "",
      comment: "",
    }),

  approval_resolved: (run, payload) =>
    patchStep(withStatus(run, "running"), approvalId(payload.approval_id), {
      status: payload.decision ?? "resolved",
      decidedBy: payload.decided_by ?? "",
      comment: payload.comment ?? "",
    }),

  final_response: (run, payload) => ({
    ...run,
    activity: "",
    draft: "",
    final: {
      content: payload.content ?? "",
      source: payload.source ?? "computed",
      degraded: payload.degraded === true,
      missingData: payload.missing_data ?? [],
      suggestions: payload.suggestions ?? [],
      artifactIds: payload.artifact_ids ?? [],
    },
  }),

  agent_completed: (run, payload, frame) =>
    ended(run, payload, frame, payload.status === "cancelled" ? "cancelled" : "completed"),

  agent_error: (run, payload, frame) => ({
    ...ended(run, payload, frame, "failed"),
    error: {
      reason: payload.reason ?? "INTERNAL",
      errorId: payload.error_id ?? "",
      message: payload.message ?? "",
      retryable: payload.retryable === true,
      suggestions: payload.recovery_suggestions ?? [],
    },
  }),
};

function progress(run, payload, frame) {
  const stage = payload.stage ?? "";
  if (stage === "queued") {
    return {
      ...withStatus(run, "queued"),
      queuePosition: payload.queue_position ?? 0,
      activity: payload.message ?? "",
    };
  }
  let next = working(run, payload);
  if (payload.discard_partial === true) next = { ...next, draft: "" };
  if (stage === "tool") {
    return patchStep(next, toolId(payload.tool_call_id), {
      progress: payload.message ?? "",
      fraction: payload.fraction ?? 0,
    });
  }
  next = { ...next, activity: payload.message ?? "" };
  if (stage === "step") return next; // shown in the run's headline; a line for each would only repeat it
  return addStep(next, frame, {
    kind: stage || "progress", // classified, planned, degraded, resumed
    text: payload.message ?? "",
    intent: payload.intent ?? "",
    confidence: payload.confidence ?? null,
    plan: payload.planned_steps ?? [],
  });
}

function otherEvent(run, payload, frame) {
  return addStep(run, frame, { kind: "other", type: frame.type, text: payload.message ?? "", payload });
}

/** A replayed finished run keeps the end that is already known of it. */
const withStatus = (run, status) => (isOpen(run) ? { ...run, status } : run);

/** A sign of work. */
function working(run, payload) {
  return {
    ...withStatus(run, "running"),
    queuePosition: 0,
    step: payload.step || run.step,
    totalSteps: payload.total_steps || run.totalSteps,
    fraction: payload.fraction || run.fraction,
  };
}

function ended(run, payload, frame, status) {
  return {
    ...run,
    status,
    activity: "",
    finishedAt: frame.timestamp ?? null,
    usage: payload.usage ?? run.usage,
    executionTimeMs: payload.execution_time_ms ?? run.executionTimeMs,
  };
}

function addStep(run, frame, step) {
  const whole = { id: `seq:${frame.seq}`, time: frame.timestamp ?? null, agentName: frame.agent_name ?? "", ...step };
  return { ...run, steps: [...run.steps, whole] };
}

function patchStep(run, id, patch) {
  return { ...run, steps: run.steps.map((step) => (step.id === id ? { ...step, ...patch } : step)) };
}

/** A person's decision is on its way. */
export const deciding = (run, id) => patchStep(run, approvalId(id), { status: "deciding" });

/** No decision was taken: the questions that wait for one can be answered again. */
export const undecided = (run) => ({
  ...run,
  steps: run.steps.map((step) => (step.status === "deciding" ? { ...step, status: "waiting" } : step)),
});

const toolId = (callId) => `tool:${callId}`;
const approvalId = (id) => `approval:${id}`;

function errorText(error) {
  if (!error) return "";
  return typeof error === "string" ? error : (error.message ?? "");
}

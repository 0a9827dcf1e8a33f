// A conversation as turns: one user message, and the run that answers it. Pure.
//
// `turns` maps a thread's key to its turns in order. The key is the thread's id, or "new:…" for a conversation that the
// service has not accepted yet; `adoptThread` renames it when the first `ack` brings the id.

const NEW_PREFIX = "new:";

/** The key of a conversation that exists only in this page so far. */
export const newThreadKey = (uniqueId) => `${NEW_PREFIX}${uniqueId}`;
export const isNewThread = (key) => key.startsWith(NEW_PREFIX);

/**
 * One turn. `delivery` is "waiting" (not yet sent on this line), "sent" (not yet acknowledged), "accepted" (durable) or
 * "refused" (see `error`). `stop` is "no", "wanted" or "asked".
 */
export function newTurn(fields) {
  return {
    key: fields.clientMessageId ?? fields.runId,
    clientMessageId: null,
    runId: null,
    content: "",
    references: [],
    settings: null, // of this message alone
    createTime: null,
    answer: "", // the stored assistant message, for runs whose log is not loaded
    delivery: "accepted",
    acceptedAtMs: 0, // this page's clock; tells a snapshot that was taken earlier from one taken later
    error: null,
    stop: "no",
    ...fields,
  };
}

/** Replaces the turns for which `matches` holds, in every thread. Returns the same object if none did. */
export function patchTurns(turns, matches, patch) {
  let changed = false;
  const next = {};
  for (const [key, list] of Object.entries(turns)) {
    next[key] = list.map((turn) => {
      if (!matches(turn)) return turn;
      changed = true;
      return { ...turn, ...(typeof patch === "function" ? patch(turn) : patch) };
    });
  }
  return changed ? next : turns;
}

export function findTurn(turns, matches) {
  for (const [threadKey, list] of Object.entries(turns)) {
    const turn = list.find(matches);
    if (turn) return { threadKey, turn };
  }
  return null;
}

export const allTurns = (turns) => Object.values(turns).flat();

export function appendTurn(turns, threadKey, turn) {
  return { ...turns, [threadKey]: [...(turns[threadKey] ?? []), turn] };
}

export function removeTurn(turns, matches) {
  return Object.fromEntries(Object.entries(turns).map(([key, list]) => [key, list.filter((turn) => !matches(turn))]));
}

/** Moves the turns of a conversation that was new to the thread that the service made for it. */
export function adoptThread(turns, newKey, threadId) {
  const { [newKey]: moved = [], ...rest } = turns;
  return { ...rest, [threadId]: [...(rest[threadId] ?? []), ...moved] };
}

/**
 * The turns of a thread from its stored messages, which are listed by run, user before assistant.
 * What the page knows better is kept: messages still on their way, runs at work, and what was accepted after the
 * snapshot was asked for (`startedAtMs`). Anything else that the list lacks was superseded or deleted, and goes.
 */
export function mergeMessages(known, messages, isRunOpen, startedAtMs) {
  const byRun = new Map();
  for (const message of messages) {
    if (message.superseded_by_run_id) continue;
    const fields = byRun.get(message.run_id) ?? { runId: message.run_id };
    if (message.role === "user") {
      fields.content = message.content;
      fields.createTime = message.create_time;
      if (message.references) fields.references = message.references;
    } else {
      fields.answer = message.content;
    }
    byRun.set(message.run_id, fields);
  }
  const knownByRun = new Map(known.filter((turn) => turn.runId).map((turn) => [turn.runId, turn]));
  const stored = [...byRun.values()].map((fields) => {
    const turn = knownByRun.get(fields.runId);
    return turn
      ? { ...turn, ...fields, references: turn.references.length ? turn.references : (fields.references ?? []) }
      : newTurn(fields);
  });
  const kept = known.filter(
    (turn) =>
      !byRun.has(turn.runId) &&
      (turn.delivery !== "accepted" || isRunOpen(turn.runId) || turn.acceptedAtMs >= startedAtMs),
  );
  return [...stored, ...kept];
}

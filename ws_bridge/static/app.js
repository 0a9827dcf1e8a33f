// The page: one state, one reducer, one line, and views that draw the state. This module only connects them.
//
// Test ids (data-testid) that tests may rely on:
//   connection (data-phase)   banner   notice   dialog   confirm
//   threads   thread (data-thread-id)   thread-rename   thread-title-input   thread-delete   thread-search   new-thread
//   transcript   empty   example   thread-notice
//   turn (data-status: waiting sent refused queued running waiting_approval completed failed cancelled; data-run-id)
//     user-message   run-headline   steps-toggle   steps   step (data-kind, data-status)   tool-details   tool-args
//     tool-result   tool-summary   tool-time   answer   usage   missing-data   suggestions   artifact   artifact-open
//     mapping   mapping-ROLE   mapping-use   work-anew   error-card (data-reason)   retry   stopped
//     approval-approve   approval-reject   approval-edit   approval-args   approval-run-edited   approval-comment
//     approval-outcome
//   report   report-frame
//   composer   send   stop   attach   file-input   attachment (data-status)   composer-problem   menu

import { Api } from "./api.js";
import { Connection } from "./connection.js";
import { Files } from "./files.js";
import { initialState, messageFrame, nextFrames, reduce, stoppableTurn } from "./reducer.js";
import { isOpen } from "./run_state.js";
import { allTurns, isNewThread, newThreadKey } from "./turns.js";
import { Keeper } from "./keep.js";
import { announcer } from "./view/announcer.js";
import { badgeView } from "./view/badge.js";
import { composerView } from "./view/composer.js";
import { confirmDialog, tokenDialog } from "./view/dialogs.js";
import { mark, setText } from "./view/dom.js";
import { drawerView } from "./view/drawer.js";
import { dropZone } from "./view/drop.js";
import { noticesView } from "./view/notices.js";
import { threadsView } from "./view/threads.js";
import { transcriptView } from "./view/transcript.js";

const EXPLAINED_RUNS = 3; // of a thread that is opened, the last run and those without an answer come with their log
const TICK_MS = 500;
const TOO_LONG_DECISION = "The arguments are too long for one frame. Shorten them.";
const TOO_LONG = "The message is too long for one frame. Shorten it, or attach the text as a file.";

const byId = (id) => document.getElementById(id);
const keeper = new Keeper(sessionStorage);
const restored = keeper.turns;
const api = new Api(sessionStorage);
const files = new Files({ api, dispatch, tell });
// A conversation that was founded just before a reload goes on under its key.
const restoredKey = restored.find(({ threadKey }) => isNewThread(threadKey))?.threadKey;
let state = initialState(restoredKey ?? newThreadKey(crypto.randomUUID()));
let isDrawn = true;
let wasLive = false;

// ── state → world ───────────────────────────────────────────────────────────────────────────────────────────────────

function dispatch(action) {
  const before = state;
  state = reduce(state, action);
  if (state === before) return;
  sendOwed();
  if (state.open.key !== before.open.key) showAddress(before.open.key);
  if (state.open.status === "deleted") startNew();
  if (state.stale && state.open.status === "ready") refresh(state.stale);
  if (state.turns !== before.turns) keeper.keepTurns(state.turns);
  draw();
}

/** Sends what the state owes the service, if the line is live; what cannot go now stays owed. */
function sendOwed() {
  if (state.connection.phase !== "live") return;
  for (const frame of nextFrames(state)) {
    if (!connection.send(frame)) return;
    state = reduce(state, { type: "frame_sent", frame });
  }
}

/** Draws at most once per frame of the screen, however many events arrive in between. */
function draw() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(() => {
    isDrawn = true;
    const nowMs = Date.now();
    views.badge.update(state, nowMs);
    views.threads.update(state, nowMs);
    views.transcript.update(state);
    views.composer.update(state);
    views.notices.update(state);
    views.announcer.update(state);
    views.transcript.tick(nowMs + state.clockOffsetMs);
    const title = state.threads.items.find((thread) => thread.thread_id === state.open.key)?.title ?? "";
    setText(byId("head-title"), title || "New conversation");
    document.title = title ? `${title} · Apex` : "Apex";
  });
}

const connection = new Connection({
  url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`,
  openSocket: (url, protocols) => new WebSocket(url, protocols),
  fetchToken: (options) => api.token(options),
  clock: { now: () => Date.now(), later: (fn, ms) => setTimeout(fn, ms), cancel: (id) => clearTimeout(id) },
  random: () => Math.random(),
  onFrame: (frame) => dispatch({ type: "frame", frame, nowMs: Date.now() }),
  onStatus: (status) => {
    dispatch({ type: "connection_changed", connection: status });
    if (status.phase === "live") catchUp();
  },
});

// ── conversations ───────────────────────────────────────────────────────────────────────────────────────────────────

async function loadThreads({ append = false } = {}) {
  const { query, nextPageToken } = state.threads;
  try {
    const page = await api.threads({ query, pageToken: append ? nextPageToken : "" });
    dispatch({
      type: "threads_loaded",
      query,
      append,
      threads: page.threads ?? [],
      nextPageToken: page.next_page_token,
    });
  } catch (error) {
    dispatch({ type: "threads_failed", message: error.message });
  }
}

/** What other tabs and programs did while there was no line, nobody told us. */
function catchUp() {
  const isFirst = !wasLive;
  wasLive = true;
  if (!isFirst || state.threads.status === "failed") loadThreads();
  if (isNewThread(state.open.key)) return;
  if (state.open.status === "failed") openThread(state.open.key);
  else if (!isFirst && state.open.status === "ready") refresh(state.open.key);
}

function searchThreads(query) {
  dispatch({ type: "threads_searched", query });
  loadThreads();
}

async function openThread(threadId) {
  dispatch({ type: "thread_opened", key: threadId });
  drawer.close();
  await readThread(threadId);
}

async function readThread(threadId) {
  const startedAtMs = Date.now();
  try {
    const [messages, runs] = await Promise.all([api.messages(threadId), api.runs(threadId)]);
    dispatch({ type: "messages_loaded", threadId, messages, runs, startedAtMs });
    const ended = runs.filter((run) => !isOpen(run));
    const told = ended.filter((run, index) => index === 0 || run.status !== "completed").slice(0, EXPLAINED_RUNS);
    await Promise.all(told.map((run) => loadSteps(run.run_id)));
  } catch (error) {
    dispatch({ type: "messages_failed", threadId, message: error.message, isGone: error.code === "NOT_FOUND" });
  }
}

/** The open thread changed elsewhere. Messages are read again only if there are runs that the page does not know. */
async function refresh(threadId) {
  dispatch({ type: "refresh_started" });
  try {
    const runs = await api.runs(threadId);
    if (state.open.key !== threadId) return;
    const known = new Set(allTurns(state.turns).map((turn) => turn.runId));
    if (runs.every((run) => known.has(run.run_id))) dispatch({ type: "runs_loaded", runs });
    else await readThread(threadId);
  } catch {
    // Reading again was a courtesy: the next change of the thread asks once more.
  }
}

async function loadSteps(runId) {
  const run = state.runs[runId];
  if (!run || run.loading) return;
  dispatch({ type: "events_loading", runId });
  try {
    const events = await api.runEvents(runId, run.cursor);
    dispatch({ type: "events_loaded", runId, events, nowMs: Date.now() });
  } catch (error) {
    dispatch({ type: "events_failed", runId, message: error.message });
  }
}

function startNew() {
  dispatch({ type: "thread_opened", key: newThreadKey(crypto.randomUUID()) });
  drawer.close();
  views.composer.focus();
}

async function renameThread(threadId, title, earlier) {
  dispatch({ type: "thread_renamed", threadId, title });
  try {
    await api.renameThread(threadId, title);
  } catch (error) {
    dispatch({ type: "thread_renamed", threadId, title: earlier });
    tell(`The conversation was not renamed. ${error.message}`);
  }
}

async function removeThread(thread) {
  const text = `“${thread.title || "New conversation"}” and all its steps are removed for good. What is at work in it is stopped.`;
  if (!(await confirmDialog({ title: "Delete this conversation?", text, action: "Delete" }))) return;
  try {
    await api.deleteThread(thread.thread_id);
    dispatch({ type: "thread_removed", threadId: thread.thread_id });
  } catch (error) {
    tell(`The conversation was not deleted. ${error.message}`);
  }
}

// ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Sends a message to the open conversation. Returns what is wrong with it, or "". */
function send(content, references = null, settings = null) {
  const broken = references ? null : state.attachments.find((item) => item.status === "failed");
  if (broken) return `${broken.name} was not uploaded. Remove it, or attach it again, before you send.`;
  references ??= readyReferences();
  const turn = { clientMessageId: crypto.randomUUID(), content, references, settings };
  const size = new TextEncoder().encode(JSON.stringify(messageFrame(turn, state.open.key))).length;
  if (size > state.maxFrameBytes) return TOO_LONG;
  const time = new Date(Date.now() + state.clockOffsetMs).toISOString();
  dispatch({ type: "message_submitted", messageId: turn.clientMessageId, content, references, settings, time });
  return "";
}

/** Sends a prompt of the empty page; while a file is on its way, or broken, the user does that when it is settled. */
function ask(text) {
  if (state.attachments.some((item) => item.status !== "ready")) views.composer.fill(text);
  else send(text);
}

const readyReferences = () =>
  state.attachments.filter((item) => item.status === "ready").map(({ fileId, name }) => ({ file_id: fileId, name }));

function retry(turn) {
  if (turn.delivery === "refused") dispatch({ type: "message_retried", messageId: turn.clientMessageId });
  else send(turn.content, turn.references);
}

function edit(turn) {
  if (turn.delivery === "refused") dispatch({ type: "message_discarded", messageId: turn.clientMessageId });
  views.composer.fill(turn.content);
}

function stopTurn(turn = stoppableTurn(state)) {
  if (!turn) return;
  const isUnsent = turn.delivery === "waiting";
  dispatch({ type: "stop_requested", key: turn.key });
  if (isUnsent) views.composer.fill(turn.content);
}

function decide(runId, approvalId, { decision, comment, editedArgs }) {
  const payload = { run_id: runId, approval_id: approvalId, decision };
  if (comment) payload.comment = comment;
  if (editedArgs) payload.edited_args = editedArgs;
  const frame = { type: "resolve_approval", payload };
  if (new TextEncoder().encode(JSON.stringify(frame)).length > state.maxFrameBytes) tell(TOO_LONG_DECISION);
  else if (connection.send(frame)) dispatch({ type: "approval_decided", runId, approvalId });
  else tell("There is no connection at the moment. Decide again when it is back.");
}

// ── the page around it ──────────────────────────────────────────────────────────────────────────────────────────────

function tell(message) {
  dispatch({ type: "notice_added", notice: { id: crypto.randomUUID(), message } });
}

function attach(list) {
  for (const file of list) files.upload(file);
  views.composer.focus();
}

const addressOf = (key) => (isNewThread(key) ? "#/" : `#/t/${key}`);
const threadInAddress = () => /^#\/t\/([0-9A-Za-z-]{1,64})$/.exec(location.hash)?.[1] ?? null;

/** A conversation that gets its id is the same place under its real name; any other is a new entry of the history. */
function showAddress(earlierKey) {
  const address = addressOf(state.open.key);
  if (location.hash === address) return;
  if (isNewThread(earlierKey)) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

function followAddress() {
  const threadId = threadInAddress();
  if (threadId === state.open.key || (!threadId && isNewThread(state.open.key))) return;
  if (threadId) openThread(threadId);
  else startNew();
}

async function signIn() {
  const token = await tokenDialog(state.connection.reason);
  if (!token) return;
  api.useToken(token);
  connection.useNewToken();
  loadThreads();
}

function onEscape(event) {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (!drawer.close()) stopTurn();
}

const drawer = drawerView({ head: byId("head"), sidebar: byId("sidebar"), scrim: byId("scrim") });
const views = {
  announcer: announcer(byId("announcer")),
  badge: badgeView({ badge: byId("badge"), banner: byId("banner") }, { retry: () => connection.retryNow(), signIn }),
  threads: threadsView(byId("threads"), {
    search: searchThreads,
    open: () => drawer.close(), // the link changes the address, and the address opens the thread
    rename: renameThread,
    remove: removeThread,
    more: () => loadThreads({ append: true }),
    startNew,
  }),
  transcript: transcriptView(byId("scroll"), {
    ask,
    attach: () => views.composer.pickFiles(),
    decide,
    discard: (turn) => dispatch({ type: "message_discarded", messageId: turn.clientMessageId }),
    download: (artifact) => files.download(artifact),
    edit,
    loadSteps,
    picture: (artifact) => files.picture(artifact),
    reload: () => openThread(state.open.key),
    startNew,
    resume: (runId) => dispatch({ type: "resume_requested", runId }),
    retry,
    stop: stopTurn,
    suggest: (text) => views.composer.fill(text),
    text: (artifact) => files.text(artifact),
    workAnew: (turn) => send(turn.content, turn.references, { use_cache: false }),
  }),
  composer: composerView(byId("composer"), {
    attach,
    changed: (text) => keeper.keepDraft(text),
    detach: (id) => files.detach(id),
    send,
    stop: () => stopTurn(),
  }),
  notices: noticesView(byId("notices"), { dismiss: (id) => dispatch({ type: "notice_dismissed", id }) }),
};

byId("brand").append(mark(), "Apex");
dropZone(byId("main"), byId("drop"), attach);
document.addEventListener("keydown", onEscape);
window.addEventListener("hashchange", followAddress);
window.addEventListener("popstate", followAddress);
window.addEventListener("online", () => connection.setOnline(true));
window.addEventListener("offline", () => connection.setOnline(false));
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && connection.wake());
setInterval(() => {
  const isMoving = state.connection.phase === "reconnecting" || Object.values(state.runs).some(isOpen);
  if (isMoving) draw();
}, TICK_MS);

if (restored.length) dispatch({ type: "messages_restored", entries: restored });
if (keeper.draft) views.composer.fill(keeper.draft);
connection.start({ online: navigator.onLine });
loadThreads();
files.loadNames();
followAddress();
draw();
if (matchMedia("(pointer: fine)").matches) views.composer.focus();

// How a run is worked on: a headline that says what happens now, and under it the timeline, folded or not.

import { isOpen } from "../run_state.js";
import { el, icon, setText } from "./dom.js";
import { count, duration, words } from "./format.js";
import { stepsView } from "./steps.js";

/** `actions`: {stop(turn), loadSteps(runId), resume(runId)}, and those of steps.js. */
export function workView(actions) {
  let turn = null;
  let run = null;
  let isUnfolded = true;
  let isChosen = false; // the user folded or unfolded it: from then on that counts
  const state = el("span", { class: "work-state" });
  const title = el("span", { class: "work-title", data: { testid: "run-headline" } });
  const time = el("span", { class: "work-time" });
  const head = el(
    "button",
    { type: "button", class: "work-head", data: { testid: "steps-toggle" }, on: { click: () => toggle() } },
    state,
    title,
    time,
    icon("chevron", "work-chevron"),
  );
  const cancel = el("button", {
    type: "button",
    class: "link",
    text: "Cancel",
    on: { click: () => actions.stop(turn) },
  });
  const bar = el("div", { class: "work-bar", hidden: true }, el("span"));
  const problem = el("p", { class: "work-problem" });
  const steps = stepsView(actions);
  const fold = el("div", { class: "work-steps" }, steps.node, problem);
  const node = el(
    "section",
    { class: "work", "aria-label": "How this was worked on" },
    el("div", { class: "work-line" }, head, cancel),
    bar,
    fold,
  );

  function toggle() {
    isChosen = true;
    isUnfolded = !isUnfolded;
    if (isUnfolded && run && !isOpen(run) && run.cursor === 0) actions.loadSteps(run.runId);
    show();
  }

  function show() {
    const hasSteps = Boolean(run) && (run.steps.length > 0 || run.loading || run.loadError || !isOpen(run));
    head.setAttribute("aria-expanded", String(isUnfolded && hasSteps));
    head.disabled = !hasSteps;
    fold.hidden = !isUnfolded || !hasSteps;
  }

  return {
    node,
    update(nextTurn, nextRun, status) {
      turn = nextTurn;
      const wasOpen = run === null || isOpen(run);
      run = nextRun;
      const isLive = !run || isOpen(run);
      // A finished run folds up and leaves the answer; one that failed or was stopped shows how far it came.
      if (!isChosen) isUnfolded = isLive || (wasOpen && run.status !== "completed") || run.error !== null;
      state.replaceChildren(stateNode(status));
      setText(title, headline(turn, run, status));
      const since = isLive && run?.startedAt && status !== "queued" ? run.startedAt : "";
      if (since) time.dataset.since = since;
      else {
        delete time.dataset.since;
        setText(time, "");
      }
      cancel.hidden = !(status === "queued" || status === "waiting") || turn.stop !== "no";
      bar.hidden = !(isLive && run && run.totalSteps > 1);
      if (run?.totalSteps)
        bar.firstChild.style.width = `${Math.round((100 * Math.max(run.step - 0.5, 0)) / run.totalSteps)}%`;
      if (run) steps.update(run);
      showProblem(problem, run, actions);
      show();
    },
  };
}

function stateNode(status) {
  if (["waiting", "sent", "queued"].includes(status)) return el("span", { class: "dot-pulse" });
  if (status === "running") return el("span", { class: "spinner" });
  return icon({ completed: "check", cancelled: "stop", failed: "alert", waiting_approval: "shield" }[status] ?? "info");
}

function headline(turn, run, status) {
  if (turn.stop !== "no" && run && isOpen(run)) return "Stopping…";
  switch (status) {
    case "waiting":
      return "Waiting to be sent";
    case "sent":
      return "Sending…";
    case "queued":
      return run?.queuePosition
        ? `Waiting for its turn · number ${run.queuePosition} in the queue`
        : "Waiting for its turn";
    case "running":
      return `${run.activity || (run.draft ? "Writing the answer" : "Working")}${run.totalSteps > 1 ? ` · step ${run.step} of ${run.totalSteps}` : ""}`;
    case "waiting_approval":
      return "Needs your decision";
    case "refused":
      return "Not accepted";
    default:
      return finishedHeadline(run, status);
  }
}

function finishedHeadline(run, status) {
  const word = { completed: "Worked", cancelled: "Stopped", failed: "Failed" }[status] ?? words(status);
  if (!run || run.cursor === 0)
    return run?.loading ? "Loading the steps…" : status === "completed" ? "Show how this was worked out" : word;
  const after = status === "completed" ? "for" : "after";
  const tools = run.steps.filter((step) => step.kind === "tool").length;
  return [`${word} ${after} ${duration(run.executionTimeMs)}`, tools ? count(tools, "tool call") : ""]
    .filter(Boolean)
    .join(" · ");
}

function showProblem(node, run, actions) {
  const text = run?.loadError ?? "";
  node.hidden = !text && !run?.loading;
  if (!text) {
    node.replaceChildren(run?.loading ? "Loading…" : "");
    return;
  }
  const again = () => (isOpen(run) ? actions.resume(run.runId) : actions.loadSteps(run.runId));
  node.replaceChildren(
    `${text} `,
    el("button", { type: "button", class: "link", text: "Try again", on: { click: again } }),
  );
}

// A question to a person about a tool call: approve it, change its arguments, or refuse it, with a word about why.

import { el, icon, setText } from "./dom.js";
import { fullTime, timeOfDay, words } from "./format.js";
import { isEmptyValue, valueNode } from "./value.js";

const MAX_COMMENT_LENGTH = 2000; // the contract's

/** `actions`: {decide(runId, approvalId, {decision, comment, editedArgs})}; `runId()` is the run's id. */
export function approvalStep(step, actions, runId) {
  const comment = el("input", {
    type: "text",
    class: "approval-comment",
    maxlength: String(MAX_COMMENT_LENGTH),
    placeholder: "A comment (optional)",
    "aria-label": "Comment on the decision",
    data: { testid: "approval-comment" },
  });
  const args = el("textarea", {
    class: "approval-args",
    rows: "8",
    spellcheck: "false",
    autocomplete: "off",
    "aria-label": "Arguments as JSON",
    data: { testid: "approval-args" },
  });
  const problem = el("p", { class: "step-text is-error", role: "alert", hidden: true });
  const button = (decision, text, className, click) =>
    el("button", { type: "button", class: className, text, data: { testid: `approval-${decision}` }, on: { click } });
  const decide = (decision, editedArgs = null) =>
    actions.decide(runId(), step.approvalId, { decision, comment: comment.value.trim(), editedArgs });
  const buttons = el(
    "div",
    { class: "approval-actions" },
    button("approve", "Approve", "button primary", () => decide("approve")),
    button("reject", "Reject", "button", () => decide("reject")),
    button("edit", "Change arguments", "button", () => showEditor(true)),
  );
  const editor = el(
    "div",
    { class: "approval-editor", hidden: true },
    args,
    problem,
    el(
      "div",
      { class: "approval-actions" },
      button("run-edited", "Approve with these", "button primary", () => sendEdited()),
      button("keep", "Keep them as they were", "button", () => showEditor(false)),
    ),
  );
  const question = el("div", { class: "approval-question" }, comment, buttons, editor);
  const outcome = el("p", { class: "step-text", data: { testid: "approval-outcome" } });
  const expiry = step.expireTime
    ? el("p", {
        class: "step-text approval-expiry",
        title: fullTime(step.expireTime),
        text: `Without a decision it is rejected at ${timeOfDay(step.expireTime)}.`,
      })
    : null;

  function showEditor(isShown) {
    editor.hidden = !isShown;
    buttons.hidden = isShown;
    problem.hidden = true;
    if (isShown) {
      args.value = JSON.stringify(step.args ?? {}, null, 2);
      args.focus();
    }
  }

  function sendEdited() {
    const edited = parsedObject(args.value);
    problem.hidden = edited !== null;
    if (edited === null) setText(problem, "These are not arguments: write one JSON object, such as {\"rows\": 1000}.");
    else decide("edit", edited);
  }

  return {
    marker: icon("shield"),
    body: el(
      "div",
      { class: "approval" },
      el("p", { class: "step-title", text: `May ${step.toolName} run?` }),
      step.text && el("p", { class: "step-text", text: step.text }),
      !isEmptyValue(step.args) && el("div", { class: "step-more" }, valueNode(step.args)),
      expiry,
      question,
      outcome,
    ),
    update(next) {
      question.hidden = next.status !== "waiting" && next.status !== "deciding";
      question.classList.toggle("is-busy", next.status === "deciding");
      for (const node of question.querySelectorAll("button, input, textarea")) node.disabled = next.status === "deciding";
      if (expiry) expiry.hidden = question.hidden;
      setText(outcome, outcomeText(next));
      outcome.hidden = outcome.textContent === "";
    },
  };
}

function outcomeText(step) {
  if (step.status === "waiting") return "";
  if (step.status === "deciding") return "Sending your decision…";
  const by = step.decidedBy ? ` by ${step.decidedBy}` : "";
  return `${words(step.status)}${by}. ${step.comment}`.trim();
}

/** The object that a text is as JSON, or null. */
function parsedObject(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

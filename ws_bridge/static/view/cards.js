// When it did not work: what happened, what helps, and the buttons to do it. `actions`: {retry, edit, discard}(turn).

import { el, icon } from "./dom.js";
import { timeWithSeconds } from "./format.js";

const ERROR_TITLES = {
  BUDGET_EXCEEDED: "The budget is used up",
  DEADLINE_EXCEEDED: "This took too long",
  MODEL_UNAVAILABLE: "The language model is not available",
  RATE_LIMITED: "Too many messages",
  MESSAGE_TOO_LARGE: "The message is too large",
  TOOL_FAILED: "A tool failed",
  TOO_MANY_RUNS: "Too much at once",
  WORKER_LOST: "The work was interrupted",
};

/** A run that failed. */
export function errorNode(turn, error, actions) {
  const retry = error.retryable
    ? el(
        "button",
        {
          type: "button",
          class: "button primary",
          data: { testid: "retry" },
          on: { click: () => actions.retry(turn) },
        },
        icon("retry"),
        "Try again",
      )
    : null;
  const edit = el("button", {
    type: "button",
    class: "button",
    text: "Edit and send again",
    on: { click: () => actions.edit(turn) },
  });
  return problemCard(error, [retry, edit]);
}

/** A message that the service did not take. */
export function refusalNode(turn, actions) {
  const { error } = turn;
  const retry = error.retryable
    ? el(
        "button",
        {
          type: "button",
          class: "button primary",
          data: { testid: "retry" },
          on: { click: () => actions.retry(turn) },
        },
        icon("retry"),
        "Try again",
      )
    : null;
  const edit = el("button", { type: "button", class: "button", text: "Edit", on: { click: () => actions.edit(turn) } });
  const discard = el("button", {
    type: "button",
    class: "button",
    text: "Discard",
    on: { click: () => actions.discard(turn) },
  });
  const suggestions = error.violations.map((violation) => `${violation.field}: ${violation.description}`);
  if (error.retryAtMs) suggestions.push(`It can be sent again at ${timeWithSeconds(error.retryAtMs)}.`);
  return problemCard({ ...error, reason: error.code, suggestions }, [retry, edit, discard]);
}

function problemCard({ reason, message, suggestions, errorId }, buttons) {
  return el(
    "div",
    { class: "card card-error", role: "alert", data: { testid: "error-card", reason } },
    el("p", { class: "card-title" }, icon("alert"), ERROR_TITLES[reason] ?? "This did not work"),
    message && el("p", { text: message }),
    suggestions.length > 0 && el("ul", {}, ...suggestions.map((text) => el("li", { text }))),
    el("div", { class: "card-actions" }, ...buttons),
    errorId && el("p", { class: "card-reference", text: `Reference ${errorId}` }),
  );
}

/** A run that somebody stopped. */
export function stoppedNode(turn, actions) {
  return el(
    "div",
    { class: "card card-stopped", data: { testid: "stopped" } },
    el("p", { text: "Stopped. What was found so far is in the steps above." }),
    el(
      "div",
      { class: "card-actions" },
      el(
        "button",
        { type: "button", class: "button", on: { click: () => actions.retry(turn) } },
        icon("retry"),
        "Ask again",
      ),
      el("button", {
        type: "button",
        class: "button",
        text: "Edit and send again",
        on: { click: () => actions.edit(turn) },
      }),
    ),
  );
}

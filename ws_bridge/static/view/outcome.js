// What stands under an answer: files, what the data did not say, time and cost, what to ask next.

import { isOpen } from "../run_state.js";
import { artifactNode } from "./artifact.js";
import { errorNode, stoppedNode } from "./cards.js";
import { el, icon, iconButton } from "./dom.js";
import { count, duration, fullTime, money, number, timeOfDay } from "./format.js";
import { describedDataset, mappingNode } from "./mapping.js";

/** The nodes for a turn whose run has ended; none before that. `actions`: {suggest(text), workAnew(turn)}, and those of cards.js. */
export function outcomeNodes(turn, run, actions) {
  if (!run || isOpen(run)) return [];
  const nodes = [];
  if (run.status === "cancelled") nodes.push(stoppedNode(turn, actions));
  if (run.error) nodes.push(errorNode(turn, run.error, actions));
  if (run.final) nodes.push(...answerNotes(run.final, run, actions));
  const answer = run.final?.content ?? turn.answer;
  if (run.usage || answer) nodes.push(footNode(run, answer));
  if (run.final?.source === "cache") nodes.push(anewNode(turn, actions));
  if (run.final?.suggestions.length) nodes.push(suggestionsNode(run.final.suggestions, actions));
  return nodes;
}

function answerNotes(final, run, actions) {
  const nodes = [];
  const files = run.artifacts.filter((artifact) => final.artifactIds.includes(artifact.artifactId));
  if (files.length) nodes.push(el("div", { class: "artifacts" }, ...files.map((file) => artifactNode(file, actions))));
  if (final.missingData.length) nodes.push(missingNode(final.missingData));
  const described = describedDataset(run.steps);
  if (described) nodes.push(mappingNode(described, actions));
  return nodes;
}

/** Folded: the answer itself says what matters of it. */
function missingNode(missing) {
  return el(
    "details",
    { class: "note", data: { testid: "missing-data" } },
    el(
      "summary",
      {},
      icon("info"),
      `${count(missing.length, "thing")} the data does not say`,
      icon("chevron", "note-chevron"),
    ),
    el("ul", {}, ...missing.map((text) => el("li", { text }))),
  );
}

/** An earlier answer may be enough, or not. */
const anewNode = (turn, actions) =>
  el(
    "p",
    { class: "anew" },
    "This is an earlier answer to the same question. ",
    el("button", {
      type: "button",
      class: "link",
      text: "Work it out anew",
      data: { testid: "work-anew" },
      on: { click: () => actions.workAnew(turn) },
    }),
  );

function footNode(run, answer) {
  const { usage, final } = run;
  const facts = [];
  if (final?.source === "cache") facts.push(["From an earlier answer", "The same question about the same data"]);
  if (final?.degraded) facts.push(["Made with less", "A part of the work failed; see the steps"]);
  if (run.finishedAt) facts.push([timeOfDay(run.finishedAt), fullTime(run.finishedAt)]);
  if (run.executionTimeMs) facts.push([duration(run.executionTimeMs), "Time at work"]);
  if (usage) {
    const cached = usage.cached_tokens ? `, ${number(usage.cached_tokens)} of them cached` : "";
    facts.push([
      `${number(usage.input_tokens ?? 0)} tokens in, ${number(usage.output_tokens ?? 0)} out`,
      `Tokens: ${number(usage.input_tokens ?? 0)} to the model${cached}, ${number(usage.output_tokens ?? 0)} from it`,
    ]);
    facts.push([
      money(usage.cost_usd ?? 0),
      `${count(usage.model_requests ?? 0, "model request")}, ${count(usage.tool_calls ?? 0, "tool call")}`,
    ]);
  }
  const list = el(
    "ul",
    { class: "facts", data: { testid: "usage" } },
    ...facts.map(([text, title]) => el("li", { text, title })),
  );
  const copy =
    answer && iconButton("copy", "Copy the answer", () => copyText(copy, answer), { class: "icon-button small" });
  return el("div", { class: "foot" }, list, copy);
}

async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.replaceChildren(icon("check"));
  } catch {
    button.replaceChildren(icon("alert"));
    button.title = "The browser did not allow it";
  }
  setTimeout(() => button.replaceChildren(icon("copy")), 1500);
}

function suggestionsNode(suggestions, actions) {
  const chips = suggestions.map((text) =>
    el(
      "li",
      {},
      el("button", { type: "button", class: "suggestion", text, on: { click: () => actions.suggest(text) } }),
    ),
  );
  return el(
    "ul",
    { class: "suggestions", "aria-label": "What to ask next", data: { testid: "suggestions" } },
    ...chips,
  );
}

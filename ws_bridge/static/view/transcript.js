// The open conversation: its turns, the empty state, and a place at the bottom that is kept while text grows.

import { openTurns } from "../reducer.js";
import { el, icon, iconButton, keyedList, mark } from "./dom.js";
import { tickElapsed } from "./steps.js";
import { turnView } from "./turn.js";

const NEAR_BOTTOM_PX = 80;

const EXAMPLES = [
  ["Analyze my AI costs", "Where the money goes, and what stands out"],
  ["Cut our spend by 30 %, keep quality", "Computed options, ranked, with risk and effort"],
  ["Write a report for management, with charts", "Facts, options and a plan, as HTML and Markdown"],
  ["Are there anomalies in our usage?", "Hours and days that do not fit the rest"],
  ["Compare latency p95 by model", "Which model is slow, and for whom"],
  ["Analyze my database performance", "Slow queries, scans and indexes, read only"],
  ["Create a knowledge base for our runbooks", "Attach documents, then ask what they say"],
  ["Generate 10,000 requests that look like Black Friday", "A made-up usage log to try things on"],
];

/** `root` is the scrolling element. `actions` as in turn.js, and reload(), startNew(), ask(text), attach(). */
export function transcriptView(root, actions) {
  const list = el("div", { class: "turns", data: { testid: "transcript" } });
  const empty = emptyNode(actions);
  const notice = el("div", { class: "thread-notice", data: { testid: "thread-notice" } });
  const down = iconButton("arrowDown", "To the latest", () => stick(), { class: "to-latest", hidden: true });
  const column = el("div", { class: "column" }, empty, notice, list);
  root.append(column, el("div", { class: "to-latest-place" }, down));

  let isAtBottom = true;
  let openKey = null;
  let openStatus = "";
  let lastKey = "";
  const updateTurns = keyedList(
    list,
    (item) => item.turn.key,
    () => turnView(actions),
  );

  const distance = () => root.scrollHeight - root.scrollTop - root.clientHeight;
  const stick = () => {
    root.scrollTop = root.scrollHeight;
  };
  root.addEventListener("scroll", () => {
    isAtBottom = distance() < NEAR_BOTTOM_PX;
    down.hidden = isAtBottom;
  });
  // Pictures, opened details and a growing composer change the height too, not only new text.
  new ResizeObserver(() => {
    if (isAtBottom) stick();
    down.hidden = distance() < NEAR_BOTTOM_PX;
  }).observe(column);

  return {
    update(state) {
      const turns = openTurns(state);
      if (state.open.key !== openKey) {
        openKey = state.open.key;
        isAtBottom = true;
      }
      updateTurns(turns.map((turn) => ({ turn, run: state.runs[turn.runId] ?? null, files: state.files })));
      const last = turns.at(-1);
      if (last?.clientMessageId && last.key !== lastKey) isAtBottom = true; // the user just wrote this: show it
      lastKey = last?.key ?? "";
      empty.hidden = turns.length > 0 || state.open.status !== "ready";
      if (openStatus !== `${state.open.status}${state.open.error}${turns.length > 0}`) {
        openStatus = `${state.open.status}${state.open.error}${turns.length > 0}`;
        notice.replaceChildren(...noticeNodes(state.open, turns.length > 0, actions));
      }
      if (isAtBottom) stick();
    },
    tick: (serviceNowMs) => tickElapsed(list, serviceNowMs),
  };
}

function noticeNodes(open, hasTurns, actions) {
  if (open.status === "loading" && !hasTurns) {
    return [
      el("div", { class: "skeleton", "aria-label": "Loading the conversation" }, el("span"), el("span"), el("span")),
    ];
  }
  if (open.status === "gone") {
    return [
      problemCard("This conversation is gone", open.error, {
        text: "New conversation",
        click: actions.startNew,
      }),
    ];
  }
  if (open.status !== "failed") return [];
  return [
    problemCard("The conversation could not be loaded", open.error, { text: "Try again", click: actions.reload }),
  ];
}

const problemCard = (title, text, { text: action, click }) =>
  el(
    "div",
    { class: "card card-error", role: "alert" },
    el("p", { class: "card-title" }, icon("alert"), title),
    el("p", { text }),
    el(
      "div",
      { class: "card-actions" },
      el("button", { type: "button", class: "button primary", text: action, on: { click } }),
    ),
  );

function emptyNode(actions) {
  const cards = EXAMPLES.map(([prompt, about]) =>
    el(
      "li",
      {},
      el(
        "button",
        { type: "button", class: "example", data: { testid: "example" }, on: { click: () => actions.ask(prompt) } },
        el("span", { class: "example-prompt", text: prompt }),
        el("span", { class: "example-about", text: about }),
      ),
    ),
  );
  return el(
    "section",
    { class: "empty", data: { testid: "empty" } },
    mark("empty-mark"),
    el("h2", { text: "What does your AI cost, and why?" }),
    el("p", {
      class: "empty-lead",
      text: "Bring a usage log and ask. You get measured answers from your own data, and see every step on the way.",
    }),
    el("ul", { class: "examples", "aria-label": "Examples" }, ...cards),
    el(
      "p",
      { class: "empty-hint" },
      el("button", {
        type: "button",
        class: "link",
        text: "Attach a CSV, JSONL, JSON or Parquet file",
        on: { click: actions.attach },
      }),
      ", or a document, or drop it anywhere. Without a usage log the built-in sample is used.",
    ),
  );
}

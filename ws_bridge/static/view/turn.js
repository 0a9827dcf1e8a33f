// One turn: what the user said, how it was worked on, and the answer.

import { isOpen } from "../run_state.js";
import { refusalNode } from "./cards.js";
import { el, icon, mark, setText } from "./dom.js";
import { fullTime } from "./format.js";
import { markdownView } from "./markdown.js";
import { outcomeNodes } from "./outcome.js";
import { workView } from "./work.js";

/**
 * `actions`: what a turn can ask for: retry(turn), edit(turn), discard(turn), stop(turn), suggest(text),
 * loadSteps(runId), resume(runId), workAnew(turn), decide(…), download(…), picture(…), text(…).
 */
export function turnView(actions) {
  const user = userView();
  const work = workView(actions);
  const answer = answerView();
  const outcome = el("div", { class: "outcome" });
  const reply = el(
    "div",
    { class: "reply" },
    mark("reply-mark"),
    el("div", { class: "reply-body" }, work.node, answer.node, outcome),
  );
  const node = el("article", { class: "turn", data: { testid: "turn" } }, user.node, reply);
  let last = [];
  return {
    node,
    update(item) {
      if (item.turn === last[0] && item.run === last[1] && item.files === last[2]) return;
      last = [item.turn, item.run, item.files];
      const { turn } = item;
      const status = statusOf(turn, item.run);
      node.dataset.status = status;
      node.dataset.runId = turn.runId ?? "";
      user.update(turn, item.files);
      reply.hidden = status === "refused";
      work.update(turn, item.run, status);
      answer.update(turn, item.run);
      outcome.replaceChildren(...outcomeNodes(turn, item.run, actions));
      const refusal = turn.delivery === "refused" ? [refusalNode(turn, actions)] : [];
      user.problem.replaceChildren(...refusal);
    },
  };
}

function statusOf(turn, run) {
  if (turn.delivery !== "accepted") return turn.delivery; // waiting, sent, refused
  return run ? run.status : "completed";
}

function userView() {
  const text = el("p", { class: "user-text", data: { testid: "user-message" } });
  const files = el("ul", { class: "user-files", "aria-label": "Attached files" });
  const problem = el("div", { class: "user-problem" });
  const node = el(
    "div",
    { class: "user" },
    el("h3", { class: "visually-hidden", text: "You" }),
    el("div", { class: "bubble" }, files, text),
    problem,
  );
  return {
    node,
    problem,
    update(turn, names) {
      setText(text, turn.content);
      if (turn.createTime) text.title = fullTime(turn.createTime);
      const chips = turn.references.map((reference) =>
        el("li", { class: "chip" }, icon("file"), reference.name ?? names[reference.file_id] ?? "A file"),
      );
      files.replaceChildren(...chips);
      files.hidden = chips.length === 0;
    },
  };
}

function answerView() {
  const view = markdownView("answer");
  const { node } = view;
  node.setAttribute("aria-live", "polite");
  node.dataset.testid = "answer";
  return {
    node,
    update(turn, run) {
      const isGrowing = Boolean(run) && isOpen(run) && !run.final;
      const text = run?.final?.content ?? (run?.draft || turn.answer);
      node.hidden = text === "";
      // Assistive technology waits for the whole answer instead of reading every piece of it.
      node.setAttribute("aria-busy", String(isGrowing));
      node.classList.toggle("is-growing", isGrowing);
      view.update(text, { tail: isGrowing });
    },
  };
}

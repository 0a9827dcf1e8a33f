// The timeline of one run: thoughts, hand-offs, tools, plans, warnings, files, questions to a person.

import { approvalStep } from "./approval.js";
import { el, icon, keyedList, setText } from "./dom.js";
import { duration, elapsed, words } from "./format.js";
import { isEmptyValue, valueNode } from "./value.js";
import { artifactNode } from "./artifact.js";

const TOOL_STATUS = {
  running: "running",
  success: "done",
  error: "failed",
  timeout: "timed out",
  denied: "not permitted",
  cancelled: "stopped",
  outcome_unknown: "outcome unknown",
};

const TOOL_ICON = { success: "check", cancelled: "stop" }; // anything else went wrong

/** `actions`: {decide(runId, approvalId, decision)}, and those of artifact.js. */
export function stepsView(actions) {
  const node = el("ol", { class: "steps", "aria-label": "Steps", data: { testid: "steps" } });
  let shown = null;
  let runId = "";
  const update = keyedList(
    node,
    (step) => step.id,
    (step) => stepView(step, actions, () => runId),
  );
  return {
    node,
    update(run) {
      runId = run.runId;
      if (run.steps === shown) return;
      shown = run.steps;
      update(run.steps);
    },
  };
}

function stepView(step, actions, runId) {
  const build = Object.hasOwn(KINDS, step.kind) ? KINDS[step.kind] : plain("info");
  const { marker, body, update = () => {} } = build(step, actions, runId);
  const node = el(
    "li",
    { class: `step step-${step.kind}`, data: { testid: "step", kind: step.kind } },
    el("span", { class: "step-marker" }, marker),
    el("div", { class: "step-body" }, body),
  );
  let shown = null;
  return {
    node,
    update(next) {
      if (next === shown) return;
      shown = next;
      if (next.status) node.dataset.status = next.status;
      update(next);
    },
  };
}

/** A step that is said once and does not change. */
const plain = (iconName, title) => (step) => ({
  marker: icon(iconName),
  body: el(
    "div",
    {},
    el("p", { class: "step-title", text: title ? title(step) : words(step.type ?? step.kind) }),
    step.text && el("p", { class: "step-text", text: step.text }),
    step.payload &&
      !isEmptyValue(step.payload) &&
      !step.text &&
      el("div", { class: "step-more" }, valueNode(step.payload)),
  ),
});

const KINDS = {
  thought: (step) => ({
    marker: icon("thought"),
    body: el("p", { class: "step-thought", text: step.text }),
  }),

  handoff: (step) => ({
    marker: icon("people"),
    body: el(
      "div",
      {},
      el(
        "p",
        { class: "step-title handoff" },
        el("span", { class: "agent", text: words(step.from) }),
        icon("handoff", "handoff-arrow"),
        el("span", { class: "visually-hidden", text: "hands over to" }),
        el("span", { class: "agent", text: words(step.to) }),
      ),
      step.text && el("p", { class: "step-text", text: step.text }),
    ),
  }),

  classified: plain("spark", (step) => {
    const sure = step.confidence ? ` · ${Math.round(step.confidence * 100)} % sure` : "";
    return `${step.intent ? words(step.intent) : "Understood"}${sure}`;
  }),

  planned: (step) => ({
    marker: icon("list"),
    body: el(
      "div",
      {},
      el("p", { class: "step-title", text: "Plan" }),
      step.plan.length === 0 && el("p", { class: "step-text", text: step.text }),
      el(
        "ol",
        { class: "plan" },
        ...step.plan.map((item) =>
          el(
            "li",
            {},
            el("span", { class: "agent", text: words(item.agent_name ?? "") }),
            el("span", { text: item.description ?? "" }),
          ),
        ),
      ),
    ),
  }),

  degraded: plain("alert", () => "Going on with less"),
  resumed: plain("retry", () => "Taken up again"),
  progress: plain("info", () => "Progress"),
  other: plain("info"),

  tool: toolStep,
  approval: approvalStep,

  artifact: (step, actions) => ({
    marker: icon("file"),
    body: artifactNode(step, actions),
  }),
};

function toolStep(step, actions) {
  const time = el("span", { class: "tool-time", data: { testid: "tool-time" } });
  const summary = el("p", { class: "step-text tool-result", data: { testid: "tool-summary" } });
  const progress = el("progress", { class: "tool-progress", max: "1", hidden: true, "aria-label": "Progress" });
  const detail = el("div", { class: "tool-detail" });
  const details = el(
    "details",
    { class: "tool", data: { testid: "tool-details" } },
    el(
      "summary",
      {},
      el("span", { class: "step-title", text: step.text || words(step.toolName) }),
      el("code", { class: "tool-name", text: step.toolName }),
      time,
      icon("chevron", "tool-chevron"),
    ),
    detail,
  );
  let current = step;
  let filledFor = null;
  const fill = () => {
    if (!details.open || filledFor === current) return; // made when looked at: results can be long
    filledFor = current;
    detail.replaceChildren(...toolDetail(current, actions));
  };
  details.addEventListener("toggle", fill);
  const marker = el("span", { class: "tool-state" });
  return {
    marker,
    body: el("div", {}, details, progress, summary),
    update(next) {
      current = next;
      const isRunning = next.status === "running";
      marker.replaceChildren(
        isRunning ? el("span", { class: "spinner" }) : icon(TOOL_ICON[next.status] ?? "alert"),
      );
      marker.title = TOOL_STATUS[next.status] ?? next.status;
      setText(time, toolTime(next));
      if (isRunning && next.time) time.dataset.since = next.time;
      else delete time.dataset.since;
      setText(summary, next.error || next.progress || next.summary);
      summary.classList.toggle("is-error", next.error !== "" && next.status !== "cancelled");
      summary.hidden = summary.textContent === "";
      progress.hidden = !(isRunning && next.fraction > 0);
      progress.value = next.fraction;
      fill();
    },
  };
}

function toolTime(step) {
  if (step.status === "running") return "";
  const took = step.executionTimeMs === null ? "" : duration(step.executionTimeMs);
  return step.status === "success"
    ? took
    : [TOOL_STATUS[step.status] ?? words(step.status), took].filter(Boolean).join(" · ");
}

function toolDetail(step, actions) {
  const section = (title, content, testid) => el("section", { data: { testid } }, el("h4", { text: title }), content);
  const parts = [];
  parts.push(
    section(
      "Arguments",
      isEmptyValue(step.args) ? el("p", { class: "none", text: "None." }) : valueNode(step.args),
      "tool-args",
    ),
  );
  if (step.status === "running")
    parts.push(section("Result", el("p", { class: "none", text: "Still at work." }), "tool-result"));
  else if (!isEmptyValue(step.result)) parts.push(section("Result", valueNode(step.result), "tool-result"));
  if (step.artifactId) {
    const artifact = {
      artifactId: step.artifactId,
      name: `${step.toolName} result`,
      mediaType: "",
      sizeBytes: 0,
      text: "",
    };
    parts.push(section("Full result", artifactNode(artifact, actions), "tool-artifact"));
  }
  return parts;
}

/** Writes the time that running things have taken so far. `serviceNowMs`: the service's clock, as the page knows it. */
export function tickElapsed(root, serviceNowMs) {
  for (const node of root.querySelectorAll("[data-since]")) {
    setText(node, elapsed(serviceNowMs - Date.parse(node.dataset.since)));
  }
}

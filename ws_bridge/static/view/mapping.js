// How a dataset's columns were read, and a way to correct it: the correction is a message like any other.

import { el } from "./dom.js";
import { words } from "./format.js";

const ROLES = [
  "timestamp",
  "model",
  "input_tokens",
  "output_tokens",
  "cached_tokens",
  "latency",
  "cost",
  "status",
  "feature",
  "user",
  "prompt",
];
const NOTHING = "";

/** The last look at a dataset among the steps of a run, or null. */
export const describedDataset = (steps) =>
  steps.findLast((step) => step.kind === "tool" && step.toolName === "describe_dataset" && step.result?.mapping)
    ?.result ?? null;

/** `described` is the result of describe_dataset. `actions`: {suggest(text)}. */
export function mappingNode(described, actions) {
  const columns = (described.columns ?? []).map((column) => column.name);
  const chosen = { ...described.mapping };
  const use = el("button", {
    type: "button",
    class: "button",
    text: "Read it like this",
    disabled: true,
    data: { testid: "mapping-use" },
    on: { click: () => actions.suggest(correction(described, chosen)) },
  });
  const rows = ROLES.map((role) => {
    const options = [NOTHING, ...columns].map((name) =>
      el("option", { value: name, text: name || "not in the file", selected: name === (chosen[role] ?? NOTHING) }),
    );
    const select = el("select", { "aria-label": words(role), data: { testid: `mapping-${role}` } }, ...options);
    select.addEventListener("change", () => {
      chosen[role] = select.value;
      use.disabled = correction(described, chosen) === "";
    });
    return el("li", {}, el("span", { text: words(role) }), select);
  });
  return el(
    "details",
    { class: "note mapping", data: { testid: "mapping" } },
    el("summary", { text: `How the columns of ${described.dataset?.name ?? "the dataset"} were read` }),
    el("ul", { class: "mapping-roles" }, ...rows),
    use,
  );
}

/** The message that asks for another reading; "" if nothing was changed. A column that is taken away is not asked for. */
export function correction(described, chosen) {
  const changes = ROLES.filter((role) => chosen[role] && chosen[role] !== described.mapping[role]).map(
    (role) => `column "${chosen[role]}" is the ${role.replace("_", " ")}`,
  );
  const name = described.dataset?.builtin_sample ? "" : (described.dataset?.name ?? "");
  return changes.length ? `Analyze ${name ? `${name}: ` : "it again: "}${changes.join(", ")}` : "";
}

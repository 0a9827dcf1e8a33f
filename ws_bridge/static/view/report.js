// An HTML report in a frame of its own: no script runs in it, nothing is loaded, and it cannot reach this page.

import { el, iconButton } from "./dom.js";

const STYLE = "/static/styles/report.css";

/** Shows the report. `actions`: {text(artifact) → Promise of the file's text, or null}. */
export async function showReport(artifact, actions) {
  const [html, style] = await Promise.all([actions.text(artifact), fetch(STYLE).then((answer) => answer.text())]);
  if (html === null) return;
  // The frame inherits this page's content security policy, which knows this style by its hash, and no other.
  const head = `<meta charset="utf-8"><style>${style}</style>`;
  const frame = el("iframe", {
    class: "report-frame",
    sandbox: "",
    title: artifact.name,
    srcdoc: `<!doctype html><html lang="en"><head>${head}</head><body>${bodyOf(html)}</body></html>`,
    data: { testid: "report-frame" },
  });
  const dialog = el(
    "dialog",
    { class: "report", "aria-label": artifact.name, data: { testid: "report" } },
    el(
      "div",
      { class: "report-head" },
      el("h2", { text: artifact.name }),
      iconButton("close", "Close the report", () => dialog.close(), { class: "icon-button" }),
    ),
    frame,
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** What stands in the body of a document, without the style of its head. It is parsed, never run: it has no window. */
const bodyOf = (html) =>
  new DOMParser().parseFromString(html.slice(Math.max(html.search(/<body/i), 0)), "text/html").body.innerHTML;

// A file that a run has made: its name, its size, a way to save it, and a look at it: a picture, or a report in a frame.

import { el, icon } from "./dom.js";
import { bytes } from "./format.js";
import { showReport } from "./report.js";

const PICTURES = "image/";
const REPORTS = "text/html";

/** `actions`: {download(artifact), picture(artifact) → Promise of an address, or null, text(artifact) → likewise}. */
export function artifactNode(artifact, actions) {
  const facts = [artifact.mediaType, artifact.sizeBytes ? bytes(artifact.sizeBytes) : ""].filter(Boolean).join(" · ");
  const node = el(
    "div",
    { class: "artifact", data: { testid: "artifact" } },
    el(
      "button",
      { type: "button", class: "artifact-file", on: { click: () => actions.download(artifact) } },
      icon("download"),
      el("span", { class: "artifact-name", text: artifact.name }),
      facts && el("span", { class: "artifact-facts", text: facts }),
    ),
    artifact.mediaType.startsWith(REPORTS) &&
      el("button", {
        type: "button",
        class: "link artifact-open",
        text: "Read it here",
        data: { testid: "artifact-open" },
        on: { click: () => showReport(artifact, actions) },
      }),
    artifact.text && el("p", { class: "step-text", text: artifact.text }),
  );
  if (artifact.mediaType.startsWith(PICTURES)) showPicture(node, artifact, actions);
  return node;
}

async function showPicture(node, artifact, actions) {
  const address = await actions.picture(artifact);
  if (address) node.append(el("img", { class: "artifact-picture", src: address, alt: artifact.text || artifact.name }));
}

// One sentence at a time for people who listen to the page: what happens, not how it looks.

import { openTurns } from "../reducer.js";
import { setText } from "./dom.js";

export function announcer(node) {
  return {
    update(state) {
      const turn = openTurns(state).at(-1);
      setText(
        node,
        [lineWords(state.connection.phase), turn ? turnWords(turn, state.runs[turn.runId]) : ""].join(" ").trim(),
      );
    },
  };
}

function lineWords(phase) {
  if (phase === "live" || phase === "connecting") return "";
  return { offline: "You are offline.", signin: "Sign-in needed.", stopped: "Disconnected." }[phase] ?? "Reconnecting.";
}

function turnWords(turn, run) {
  if (turn.delivery === "refused") return "The message was not accepted.";
  if (!run) return "";
  const words = {
    queued: "The message waits for its turn.",
    running: "Apex is working.",
    waiting_approval: "Apex needs your decision.",
    completed: "The answer is ready.",
    cancelled: "Stopped.",
    failed: "This did not work.",
  };
  return words[run.status] ?? "";
}

// Reads lists of frames by name; writes, by name, the runs that the page makes of them and what it then owes.

import { readFileSync } from "node:fs";

import { nextFrames } from "../../ws_bridge/static/reducer.js";
import { fresh, play, received } from "../browser/support.mjs";

const lists = JSON.parse(readFileSync(0, "utf8"));
const played = Object.entries(lists).map(([name, frames]) => {
    const state = play(fresh(), ...frames.map(received));
    return [name, { runs: state.runs, owed: nextFrames(state) }];
});
process.stdout.write(JSON.stringify(Object.fromEntries(played)));

// Writes which types of events and frames the page has something for.

import { Connection } from "../../ws_bridge/static/connection.js";
import { FRAME_HANDLERS } from "../../ws_bridge/static/reducer.js";
import { EVENT_HANDLERS } from "../../ws_bridge/static/run_state.js";

const tables = { events: EVENT_HANDLERS, frames: FRAME_HANDLERS, controls: Connection.CONTROLS };
const names = Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, Object.keys(table)]));
process.stdout.write(JSON.stringify(names));

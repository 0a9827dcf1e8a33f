// What the module tests share: frames of a run, and a line whose clock and socket are driven by hand.

import { initialState, nextFrames, reduce } from "../../ws_bridge/static/reducer.js";

export const NEW = "new:1";
export const THREAD = "thread-1";
export const RUN = "run-1";
export const NOW = Date.parse("2026-11-21T10:00:00Z");

/** The events of a run from [type, payload] pairs, with gapless seqs from 1. */
export function events(...items) {
    return items.map(([type, payload = {}], index) => ({
        type,
        payload,
        run_id: RUN,
        thread_id: THREAD,
        seq: index + 1,
        attempt: 1,
        agent_name: "data",
        timestamp: `2026-11-21T10:00:0${index % 10}.000000Z`,
    }));
}

export const frame = (type, payload = {}) => ({ type: "frame", frame: { type, payload }, nowMs: NOW });
export const received = (event) => ({ type: "frame", frame: event, nowMs: NOW });

/** Applies actions, or event frames, in order. */
export const play = (state, ...actions) =>
    actions.reduce((next, action) => reduce(next, action.seq ? received(action) : action), state);

export const fresh = () => initialState(NEW);

export const submitted = (messageId, content = "Analyze my AI costs", references = []) => ({
    type: "message_submitted",
    messageId,
    content,
    references,
    time: "2026-11-21T10:00:00.000Z",
});

export const ack = (messageId, existed = false, runId = RUN) =>
    frame("ack", {
        message_id: messageId,
        run_id: runId,
        thread_id: THREAD,
        user_message_id: "um",
        already_existed: existed,
    });

export const established = (activeRuns = []) =>
    frame("connection_established", {
        connection_id: "c",
        user_id: "dev",
        server_time: "2026-11-21T10:00:02Z",
        max_frame_bytes: 8192,
        active_runs: activeRuns,
    });

/** Hands over everything that the state owes, like app.js on a live line. Returns the state and the frames. */
export function sendOwed(state) {
    const frames = nextFrames(state);
    return { frames, state: play(state, ...frames.map((sent) => ({ type: "frame_sent", frame: sent }))) };
}

/** A state with one accepted message whose run has begun on this line. */
export function accepted() {
    const { state } = sendOwed(play(fresh(), submitted("m1")));
    return play(state, ack("m1"));
}

/** Timers that pass when the test says so. */
export class Clock {
    nowMs = NOW;
    #timers = new Map();
    #ids = 0;

    now = () => this.nowMs;

    later = (callback, ms) => {
        this.#ids += 1;
        this.#timers.set(this.#ids, { callback, atMs: this.nowMs + ms });
        return this.#ids;
    };

    cancel = (id) => this.#timers.delete(id);

    /** Lets time pass, with every timer that falls due on the way; returns after the promises that they began. */
    async pass(ms) {
        const endMs = this.nowMs + ms;
        for (;;) {
            const due = [...this.#timers]
                .filter(([, timer]) => timer.atMs <= endMs)
                .sort((a, b) => a[1].atMs - b[1].atMs)[0];
            if (!due) break;
            this.#timers.delete(due[0]);
            this.nowMs = due[1].atMs;
            due[1].callback();
            await settled();
        }
        this.nowMs = endMs;
    }

    /** How long until the next timer, in ms. */
    untilNext() {
        return Math.min(...[...this.#timers.values()].map((timer) => timer.atMs)) - this.nowMs;
    }
}

export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A WebSocket whose other end is the test. */
export class Socket {
    readyState = 1;
    sent = [];
    closed = false;

    constructor(url, protocols) {
        this.url = url;
        this.protocols = protocols;
    }

    send(text) {
        this.sent.push(JSON.parse(text));
    }

    close() {
        this.closed = true;
        this.readyState = 3;
    }

    says(type, payload = {}) {
        this.onmessage({ data: JSON.stringify({ type, payload }) });
    }

    breaks(code, reason = "") {
        this.readyState = 3;
        this.onclose({ code, reason });
    }

    types() {
        return this.sent.map((sent) => sent.type);
    }
}

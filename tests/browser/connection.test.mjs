// The line: signing in, waiting, coming back. Time and the socket are in the test's hands.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Connection, TIMES_MS, base64url, closeAction } from "../../ws_bridge/static/connection.js";
import { Clock, Socket, settled } from "./support.mjs";

const HEARTBEAT_MS = 20_000;

class Line {
    clock = new Clock();
    sockets = [];
    phases = [];
    frames = [];
    tokens = []; // what was asked of fetchToken
    tokenError = null;
    random = 0.5;

    constructor() {
        this.connection = new Connection({
            url: "ws://x/ws",
            openSocket: (url, protocols) => this.sockets[this.sockets.push(new Socket(url, protocols)) - 1],
            fetchToken: async (options) => {
                this.tokens.push(options.fresh);
                if (this.tokenError) throw this.tokenError;
                return `token-${this.tokens.length}`;
            },
            clock: this.clock,
            random: () => this.random,
            onFrame: (frame) => this.frames.push(frame.type),
            onStatus: (status) => {
                this.status = status;
                this.phases.push(status.phase);
            },
        });
    }

    get socket() {
        return this.sockets.at(-1);
    }

    get phase() {
        return this.status.phase;
    }

    establish() {
        this.socket.says("connection_established", { heartbeat_interval_ms: HEARTBEAT_MS });
    }

    /** A line that is live and has been so for long enough to count as stable. */
    static async live() {
        const line = new Line();
        line.connection.start();
        await settled();
        line.establish();
        await line.clock.pass(TIMES_MS.stable);
        return line;
    }
}

test("signs in with the token as a subprotocol and is live only after connection_established", async () => {
    const line = new Line();
    line.connection.start();
    await settled();
    assert.deepEqual(line.socket.protocols, ["apex.v1", `jwt.${base64url("token-1")}`]);
    assert.equal(line.phase, "connecting");
    assert.equal(line.connection.send({ type: "ping", payload: {} }), false);
    line.establish();
    assert.equal(line.phase, "live");
    assert.equal(line.connection.send({ type: "x", payload: {} }), true);
});

test("the page sees connection_established before the line is called live", async () => {
    const line = new Line();
    line.connection.start();
    await settled();
    const order = [];
    line.connection = null;
    line.socket.onmessage = ((original) => (event) => {
        original(event);
        order.push(...line.frames, line.phase);
    })(line.socket.onmessage);
    line.establish();
    assert.deepEqual(order, ["connection_established", "live"]);
});

test("a token in base64url has no character that a subprotocol cannot carry", () => {
    assert.equal(base64url("a?b>c~~~ÿ"), Buffer.from("a?b>c~~~ÿ", "latin1").toString("base64url"));
});

test("close codes by class", () => {
    const expected = { 4000: "at-once", 4001: "at-once", 4008: "at-once", 4103: "wait", 4129: "wait", 4401: "sign-in" };
    Object.assign(expected, {
        4400: "stop",
        4403: "stop",
        1000: "backoff",
        1001: "backoff",
        1006: "backoff",
        1009: "backoff",
        1012: "backoff",
    });
    for (const [code, action] of Object.entries(expected)) assert.equal(closeAction(Number(code)), action, code);
});

test("40xx comes back at once, then with growing waits", async () => {
    const line = await Line.live();
    line.socket.breaks(4008);
    assert.equal(line.phase, "reconnecting");
    assert.ok(line.status.retryAtMs - line.clock.nowMs <= TIMES_MS.atOnce);
    const waits = [];
    for (let round = 0; round < 9; round += 1) {
        await line.clock.pass(line.clock.untilNext());
        line.socket.breaks(4000);
        waits.push(line.status.retryAtMs - line.clock.nowMs);
    }
    assert.deepEqual(waits.slice(0, 4), [750, 1500, 3000, 6000]);
    assert.ok(Math.max(...waits) <= TIMES_MS.backoffMax);
});

test("a line that lived long enough starts the waits anew; one that did not goes on with them", async () => {
    const line = await Line.live();
    line.socket.breaks(4000);
    await line.clock.pass(TIMES_MS.atOnce);
    line.establish();
    line.socket.breaks(4000);
    assert.equal(line.status.retryAtMs - line.clock.nowMs, 750);
    await line.clock.pass(750);
    line.establish();
    await line.clock.pass(TIMES_MS.stable);
    line.socket.breaks(4000);
    assert.ok(line.status.retryAtMs - line.clock.nowMs <= TIMES_MS.atOnce);
});

test("41xx waits at least as long as it was told", async () => {
    const line = await Line.live();
    line.socket.says("error", { code: "TOO_MANY_CONNECTIONS", retry_after_ms: 12_000 });
    line.socket.breaks(4103);
    assert.equal(line.status.retryAtMs - line.clock.nowMs, 12_000);
    const other = await Line.live();
    other.socket.breaks(4129);
    assert.ok(other.status.retryAtMs - other.clock.nowMs >= TIMES_MS.waitBase);
});

test("4401 signs in again with a fresh token, once; then a person is asked", async () => {
    const line = await Line.live();
    line.socket.breaks(4401);
    await line.clock.pass(1);
    assert.deepEqual(line.tokens, [false, true]);
    line.socket.breaks(4401);
    assert.equal(line.phase, "signin");
    line.connection.retryNow();
    await settled();
    assert.deepEqual(line.tokens, [false, true, true]);
});

test("no token at all: sign-in needed if a person can help, no more tries if nobody can, else another try", async () => {
    const line = new Line();
    line.tokenError = Object.assign(new Error("Sign in."), { signInNeeded: true });
    line.connection.start();
    await settled();
    assert.deepEqual([line.phase, line.status.reason], ["signin", "Sign in."]);
    const refused = new Line();
    refused.tokenError = Object.assign(new Error("Not from this page."), { isFinal: true });
    refused.connection.start();
    await settled();
    assert.deepEqual([refused.phase, refused.status.reason], ["stopped", "Not from this page."]);
    const other = new Line();
    other.tokenError = new Error("unreachable");
    other.connection.start();
    await settled();
    assert.equal(other.phase, "reconnecting");
    other.tokenError = null;
    await other.clock.pass(TIMES_MS.backoffBase);
    assert.equal(other.sockets.length, 1);
});

test("4403 stops until a person tries again", async () => {
    const line = await Line.live();
    line.socket.breaks(4403, "forbidden");
    assert.deepEqual([line.phase, line.status.reason], ["stopped", "forbidden"]);
    await line.clock.pass(3_600_000);
    assert.equal(line.sockets.length, 1);
    line.connection.retryNow();
    await settled();
    assert.equal(line.sockets.length, 2);
});

test("pings at the advertised interval, and answers pings", async () => {
    const line = await Line.live();
    await line.clock.pass(HEARTBEAT_MS - TIMES_MS.stable);
    assert.deepEqual(line.socket.types(), ["ping"]);
    line.socket.says("pong", line.socket.sent[0].payload);
    line.socket.says("ping", { nonce: "n" });
    assert.deepEqual(line.socket.sent.at(-1), { type: "pong", payload: { nonce: "n" } });
    await line.clock.pass(TIMES_MS.pong);
    assert.equal(line.phase, "live");
});

test("silence after a ping is a dead line, and is not waited for", async () => {
    const line = await Line.live();
    const [dead] = line.sockets;
    await line.clock.pass(HEARTBEAT_MS - TIMES_MS.stable + TIMES_MS.pong);
    assert.equal(dead.closed, true);
    assert.notEqual(line.phase, "live");
    await line.clock.pass(TIMES_MS.atOnce);
    assert.equal(line.sockets.length, 2);
    dead.onclose({ code: 1006, reason: "" });
    assert.equal(line.sockets.length, 2);
});

test("a service that never answers the upgrade is given up in time", async () => {
    const line = new Line();
    line.connection.start();
    await settled();
    await line.clock.pass(TIMES_MS.handshake);
    assert.equal(line.sockets[0].closed, true);
    assert.equal(line.phase, "reconnecting");
});

test("an expiring token is renewed on the live line", async () => {
    const line = await Line.live();
    line.socket.says("auth_expiring", { expires_in_ms: 60_000 });
    await settled();
    assert.deepEqual(line.socket.sent, [{ type: "authenticate", payload: { token: "token-2" } }]);
    assert.deepEqual([line.tokens, line.phase], [[false, true], "live"]);
});

test("a draining service is left when it says so, or when it closes, but not earlier", async () => {
    const line = await Line.live();
    line.socket.says("server_draining", { reconnect_after_ms: 3000 });
    await line.clock.pass(2999);
    assert.equal(line.sockets.length, 1);
    await line.clock.pass(1);
    assert.deepEqual([line.sockets.length, line.sockets[0].closed], [2, true]);
    const other = await Line.live();
    other.socket.says("server_draining", { reconnect_after_ms: 3000 });
    other.socket.breaks(4000);
    assert.equal(other.status.retryAtMs - other.clock.nowMs, 3000);
});

test("offline drops the line, online opens it without waiting", async () => {
    const line = await Line.live();
    line.connection.setOnline(false);
    assert.deepEqual([line.phase, line.socket.closed], ["offline", true]);
    await line.clock.pass(600_000);
    assert.equal(line.sockets.length, 1);
    line.connection.setOnline(true);
    await settled();
    assert.equal(line.sockets.length, 2);
});

test("waking up looks at once: a ping on a live line, a connection on a waiting one", async () => {
    const line = await Line.live();
    line.connection.wake();
    assert.deepEqual(line.socket.types(), ["ping"]);
    line.socket.breaks(1006);
    assert.equal(line.phase, "reconnecting");
    line.connection.wake();
    await settled();
    assert.equal(line.sockets.length, 2);
});

test("what an abandoned socket still says is not heard", async () => {
    const line = await Line.live();
    const [old] = line.sockets;
    old.breaks(1012);
    await line.clock.pass(TIMES_MS.backoffMax);
    old.says("thread_created", {});
    assert.deepEqual(line.frames, ["connection_established"]);
});

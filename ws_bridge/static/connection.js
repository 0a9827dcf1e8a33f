// The line to the service: one WebSocket at a time, signed in, watched, and opened again when it breaks.
//
// Knows sign-in, heartbeat, close codes and waiting; knows nothing of runs or messages. What goes over it again after
// a break is the reducer's affair. Everything that touches the world is passed in, so that tests drive it by hand:
//   openSocket(url, protocols) → WebSocket
//   fetchToken({fresh}) → Promise<string>, rejects with {message, signInNeeded, isFinal}
//   clock {now() ms, later(fn, ms) → id, cancel(id)}     random() → [0, 1)
//   onFrame(frame)     onStatus({phase, retryAtMs, reason})
//
// Phases: connecting, live, reconnecting (retryAtMs: when), offline, signin (a person must act), stopped (until retryNow).

export const TIMES_MS = Object.freeze({
  handshake: 15_000, // from opening the socket to connection_established
  heartbeat: 45_000, // between pings, until the service advertises its own
  minHeartbeat: 5_000,
  pong: 10_000, // silence after a ping that means a dead line
  stable: 5_000, // a line that lived shorter does not reset the backoff
  atOnce: 250, // most that "at once" may be spread
  backoffBase: 500,
  backoffMax: 30_000,
  waitBase: 5_000, // close codes 41xx: somebody asked us to wait
});

const SUBPROTOCOL = "apex.v1";
const CLOSE_NORMAL = 1000;
const CLOSE_SIGN_IN = 4401;
const CLOSE_TOO_BIG = 1009;

/** What a close code asks for: "at-once", "backoff", "wait", "sign-in" or "stop". */
export function closeAction(code) {
  if (code >= 4000 && code <= 4099) return "at-once";
  if (code >= 4100 && code <= 4199) return "wait";
  if (code === CLOSE_SIGN_IN) return "sign-in";
  if (code >= 4400 && code <= 4499) return "stop";
  return "backoff";
}

/** Text as base64url without padding, the form in which a subprotocol can carry a token. */
export function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export class Connection {
  /** What the line itself does at a frame, by the frame's type; everything else is the reducer's alone. */
  static CONTROLS = Object.freeze({
    connection_established: (line, payload) => line.#established(payload),
    ping: (line, payload) => line.send({ type: "pong", payload }),
    auth_expiring: (line) => line.#renew(),
    server_draining: (line, payload) => line.#draining(payload.reconnect_after_ms ?? 0),
  });

  #deps;
  #socket = null;
  #generation = 0; // callbacks of an earlier socket or an earlier attempt are ignored
  #timers = new Map();
  #attempt = 0; // breaks in a row
  #refusals = 0; // refused sign-ins in a row
  #isLive = false;
  #isOnline = true;
  #liveSinceMs = 0;
  #heardAtMs = 0;
  #retryAfterMs = 0;
  #notBeforeMs = 0; // a draining service told us when to come back
  #heartbeatMs = TIMES_MS.heartbeat;

  constructor(deps) {
    this.#deps = deps;
  }

  start({ online = true } = {}) {
    this.#isOnline = online;
    if (online) this.#connect();
    else this.#status("offline");
  }

  /** Ends for good. */
  stop() {
    this.#drop();
    this.#status("stopped");
  }

  /** A person asked, or something changed: no more waiting. */
  retryNow() {
    if (this.#isLive || !this.#isOnline || this.#socket) return;
    this.#refusals = Math.min(this.#refusals, 1); // still asks for a fresh token, once
    this.#connect();
  }

  /** A person brought another token: it is tried before a fresh one is asked for. */
  useNewToken() {
    this.#refusals = 0;
    this.#connect();
  }

  /** Sends a frame if the line is live; false if it is not. */
  send(frame) {
    if (!this.#isLive || this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** The browser's own word on whether there is a network. */
  setOnline(isOnline) {
    if (isOnline === this.#isOnline) return;
    this.#isOnline = isOnline;
    if (isOnline) {
      this.#connect();
    } else {
      this.#drop();
      this.#status("offline");
    }
  }

  /** The page came back to the foreground: the timers may have slept, so look at once. */
  wake() {
    if (this.#isLive) this.#ping();
    else this.retryNow();
  }

  async #connect() {
    this.#drop();
    const generation = this.#generation;
    this.#status("connecting");
    let token;
    try {
      token = await this.#deps.fetchToken({ fresh: this.#refusals > 0 });
    } catch (error) {
      if (generation !== this.#generation) return;
      if (error.signInNeeded) this.#status("signin", { reason: error.message });
      else if (error.isFinal) this.#status("stopped", { reason: error.message });
      else this.#wait(this.#backoff(), error.message);
      return;
    }
    if (generation === this.#generation) this.#open(token, generation);
  }

  #open(token, generation) {
    const socket = this.#deps.openSocket(this.#deps.url, [SUBPROTOCOL, `jwt.${base64url(token)}`]);
    this.#socket = socket;
    this.#retryAfterMs = 0;
    const current = (handler) => (event) => {
      if (generation === this.#generation) handler(event);
    };
    socket.onmessage = current((event) => this.#received(event.data));
    socket.onclose = current((event) => this.#closed(event.code, event.reason));
    this.#after("handshake", TIMES_MS.handshake, () => this.#lost("The service did not answer."));
  }

  #received(data) {
    this.#heardAtMs = this.#deps.clock.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return; // not ours: the service sends JSON only
    }
    // The frame first: by the time the line is called live, the page knows what it has to send again.
    this.#deps.onFrame(frame);
    this.#control(frame.type, frame.payload ?? {});
  }

  #control(type, payload) {
    this.#retryAfterMs = type === "error" ? (payload.retry_after_ms ?? 0) : 0; // counts right before a close only
    if (Object.hasOwn(Connection.CONTROLS, type)) Connection.CONTROLS[type](this, payload);
  }

  #established(payload) {
    this.#cancel("handshake");
    this.#isLive = true;
    this.#refusals = 0;
    this.#liveSinceMs = this.#deps.clock.now();
    this.#heartbeatMs = Math.max(payload.heartbeat_interval_ms || TIMES_MS.heartbeat, TIMES_MS.minHeartbeat);
    this.#status("live");
    this.#after("heartbeat", this.#heartbeatMs, () => this.#ping());
  }

  #ping() {
    const askedAtMs = this.#deps.clock.now();
    this.send({ type: "ping", payload: { nonce: String(askedAtMs) } });
    this.#after("pong", TIMES_MS.pong, () => {
      // Any frame shows that the line lives; it need not be the pong.
      if (this.#heardAtMs < askedAtMs) this.#lost("The line went silent.");
    });
    this.#after("heartbeat", this.#heartbeatMs, () => this.#ping());
  }

  async #renew() {
    const generation = this.#generation;
    try {
      const token = await this.#deps.fetchToken({ fresh: true });
      if (generation === this.#generation) this.send({ type: "authenticate", payload: { token } });
    } catch {
      // The service closes with 4401 at expiry, and the sign-in that follows shows what is wrong.
    }
  }

  /** The service is about to go: leave at the moment that it gave us, or when it closes, whichever is first. */
  #draining(afterMs) {
    this.#notBeforeMs = this.#deps.clock.now() + afterMs;
    this.#after("drain", afterMs, () => this.#connect());
  }

  /** A line that is dead without a close event. Its own close may take minutes, so it is not waited for. */
  #lost(reason) {
    this.#ended("at-once", reason);
  }

  #closed(code, reason) {
    const action = closeAction(code);
    this.#ended(action, reason || (code === CLOSE_TOO_BIG ? "A message was too large for the line." : ""));
  }

  #ended(action, reason) {
    const lived = this.#isLive ? this.#deps.clock.now() - this.#liveSinceMs : 0;
    const retryAfterMs = this.#retryAfterMs;
    this.#drop();
    if (lived >= TIMES_MS.stable) this.#attempt = 0;
    if (action === "sign-in") {
      this.#refusals += 1;
      if (this.#refusals > 1) this.#status("signin", { reason: reason || "The service did not accept the sign-in." });
      else this.#wait(0, reason);
    } else if (action === "stop") {
      this.#status("stopped", { reason: reason || "The service refused this page." });
    } else if (action === "wait") {
      this.#wait(Math.max(retryAfterMs, TIMES_MS.waitBase * (1 + this.#deps.random()), this.#backoff()), reason);
    } else if (action === "at-once" && this.#attempt === 0) {
      this.#attempt = 1;
      this.#wait(Math.max(TIMES_MS.atOnce * this.#deps.random(), this.#notBeforeMs - this.#deps.clock.now()), reason);
    } else {
      this.#wait(this.#backoff(), reason);
    }
  }

  /** Exponential, bounded, and spread over its upper half so that a thousand pages do not return in one moment. */
  #backoff() {
    const full = Math.min(TIMES_MS.backoffMax, TIMES_MS.backoffBase * 2 ** this.#attempt);
    this.#attempt += 1;
    return full * (0.5 + this.#deps.random() / 2);
  }

  #wait(ms, reason = "") {
    this.#status("reconnecting", { retryAtMs: this.#deps.clock.now() + ms, reason });
    this.#after("retry", ms, () => this.#connect());
  }

  #drop() {
    this.#generation += 1;
    for (const id of this.#timers.values()) this.#deps.clock.cancel(id);
    this.#timers.clear();
    this.#isLive = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(CLOSE_NORMAL);
  }

  #after(name, ms, callback) {
    this.#cancel(name);
    this.#timers.set(name, this.#deps.clock.later(callback, ms));
  }

  #cancel(name) {
    if (this.#timers.has(name)) this.#deps.clock.cancel(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #status(phase, { retryAtMs = null, reason = "" } = {}) {
    this.#deps.onStatus({ phase, retryAtMs, reason });
  }
}

// Tokens: which one is used, and which one a reload of the tab finds again.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { Api } from "../../ws_bridge/static/api.js";

const KEY = "apex.token";
const { fetch } = globalThis;

afterEach(() => {
    globalThis.fetch = fetch;
});

function storage() {
    const items = new Map();
    return {
        getItem: (key) => items.get(key) ?? null,
        setItem: (key, value) => items.set(key, value),
        removeItem: (key) => items.delete(key),
    };
}

const responds = (status, body) => async () => new Response(JSON.stringify(body), { status });

test("a pasted token stays for the next load until there is another", async () => {
    const kept = storage();
    const api = new Api(kept);
    api.useToken("pasted");

    globalThis.fetch = async () => {
        throw new TypeError("no line");
    };
    await assert.rejects(api.token({ fresh: true }), { code: "SERVICE_UNAVAILABLE" });
    assert.equal(kept.getItem(KEY), "pasted");

    globalThis.fetch = responds(404, {});
    await assert.rejects(api.token({ fresh: true }), { signInNeeded: true });
    assert.equal(await new Api(kept).token(), "pasted");

    globalThis.fetch = responds(200, { token: "made", expires_at: "2999-01-01T00:00:00Z" });
    assert.equal(await api.token({ fresh: true }), "made");
    assert.equal(kept.getItem(KEY), null);
    assert.equal(await api.token(), "made");
});

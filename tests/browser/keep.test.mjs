// What a reload of the tab must not lose.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Keeper } from "../../ws_bridge/static/keep.js";
import { openTurns } from "../../ws_bridge/static/reducer.js";
import { NEW, accepted, fresh, play, sendOwed, submitted } from "./support.mjs";

class Storage {
    items = new Map();

    getItem = (key) => this.items.get(key) ?? null;

    setItem = (key, value) => this.items.set(key, value);
}

test("messages that nobody acknowledged come back, and go out under their id", () => {
    const storage = new Storage();
    const { state } = sendOwed(play(fresh(), submitted("m1", "one"), submitted("m2", "two")));
    new Keeper(storage).keepTurns(state.turns);
    const restored = play(fresh(), { type: "messages_restored", entries: new Keeper(storage).turns });
    assert.deepEqual(
        openTurns(restored).map((turn) => [turn.content, turn.delivery]),
        [
            ["one", "waiting"],
            ["two", "waiting"],
        ],
    );
    assert.deepEqual(
        sendOwed(restored).frames.map((frame) => frame.payload.message_id),
        ["m1"],
    );
});

test("what was acknowledged is the service's to keep", () => {
    const storage = new Storage();
    const keeper = new Keeper(storage);
    keeper.keepTurns(play(fresh(), submitted("m1")).turns);
    keeper.keepTurns(accepted().turns);
    assert.deepEqual(new Keeper(storage).turns, []);
});

test("the text being written comes back beside them", () => {
    const storage = new Storage();
    const keeper = new Keeper(storage);
    keeper.keepDraft("half a thou");
    keeper.keepTurns({ [NEW]: [] });
    assert.equal(new Keeper(storage).draft, "half a thou");
});

test("a storage that is broken or full does no harm", () => {
    const storage = new Storage();
    storage.items.set("apex.kept", "{not json");
    const keeper = new Keeper(storage);
    assert.deepEqual([keeper.turns, keeper.draft], [[], ""]);
    storage.setItem = () => {
        throw new Error("full");
    };
    keeper.keepDraft("x");
    assert.equal(keeper.draft, "x");
});

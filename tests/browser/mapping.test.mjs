// Corrections of columns: what a person changed becomes a message in words.

import assert from "node:assert/strict";
import { test } from "node:test";

import { correction, describedDataset } from "../../ws_bridge/static/view/mapping.js";

const DESCRIBED = { dataset: { name: "log.csv", builtin_sample: false }, mapping: { timestamp: "when", model: "m" } };

test("only what was changed is said, in the words of the roles", () => {
    const chosen = { timestamp: "when", model: "name", input_tokens: "ctx" };
    const said = 'Analyze log.csv: column "name" is the model, column "ctx" is the input tokens';
    assert.equal(correction(DESCRIBED, chosen), said);
});

test("nothing changed, and a column that was taken away, ask for nothing", () => {
    assert.equal(correction(DESCRIBED, DESCRIBED.mapping), "");
    assert.equal(correction(DESCRIBED, { timestamp: "", model: "m" }), "");
});

test("the built-in sample has no name that a message could use", () => {
    const sample = { ...DESCRIBED, dataset: { name: "sample.csv.gz", builtin_sample: true } };
    assert.equal(correction(sample, { model: "x" }), 'Analyze it again: column "x" is the model');
});

test("the last look that succeeded counts", () => {
    const step = (mapping) => ({ kind: "tool", toolName: "describe_dataset", result: mapping && { mapping } });
    assert.deepEqual(describedDataset([step({ a: 1 }), step({ b: 2 }), step(null)]), { mapping: { b: 2 } });
    assert.equal(describedDataset([{ kind: "tool", toolName: "usage_summary", result: {} }]), null);
});

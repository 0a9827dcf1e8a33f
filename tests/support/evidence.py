"""Earlier calls of a run, for tests of tools that cite them. Every number here is made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolContext, ToolRecord
from tests.support.datasets import context

DATASET: Final[JsonObject] = {"dataset_id": "d1", "name": "march.csv", "rows": 300, "builtin_sample": False}

USAGE: Final[JsonObject] = {
    "dataset": DATASET,
    "totals": {"requests": 300, "input_tokens": 45_000, "output_tokens": 9_000, "cost_usd": 42.5, "error_rate": 0.125},
    "latency_ms": {"p50": 812.4, "p95": 12_345.0, "p99": 20_000.0},
    "groups": {
        "model": [
            {
                "name": "gpt-4o",
                "requests": 200,
                "cost_usd": 40.25,
                "latency_ms": {"p50": 900, "p95": 1800, "p99": 2500},
            },
            {
                "name": "gpt-4o-mini",
                "requests": 100,
                "cost_usd": 2.25,
                "latency_ms": {"p50": 300, "p95": 700, "p99": 950},
            },
        ],
        "day": [
            {"name": "2026-03-02", "requests": 120, "cost_usd": 17.5},
            {"name": "2026-03-01", "requests": 180, "cost_usd": 25.0},
        ],
    },
    "other": {"model": None, "day": None},
    "missing": [],
}
COSTS: Final[JsonObject] = {
    "dataset": DATASET,
    "group_by": ["feature"],
    "total_cost_usd": 42.5,
    "groups": [
        {"name": "chat", "requests": 150, "cost_usd": 30.5, "share": 0.717647},
        {"name": "mail", "requests": 100, "cost_usd": 9.75, "share": 0.229412},
    ],
    "other": {"groups": 2, "requests": 50, "cost_usd": 2.25},
    "missing": [
        {"column": "user", "why_it_matters": "Costs by user are not known.", "how_to_supply": "Add a column user."}
    ],
}
PATTERN: Final[JsonObject] = {
    "dataset": DATASET,
    "hourly": [{"hour": hour, "requests": 10 + hour} for hour in range(24)],
    "series": {
        "bucket_s": 3600,
        "points": [
            {"start": "2026-03-01T00:00:00Z", "requests": 33},
            {"start": "2026-03-01T01:00:00Z", "requests": 44},
        ],
    },
}


def an_option(option_id: str = "route", *, saving: float = 12.5, kind: str = "routing", **more: object) -> JsonObject:
    """Return an option as the optimization tools give it, over a cost of 50 dollars."""
    found: dict[str, object] = {
        "id": option_id,
        "kind": kind,
        "title": f"Option {option_id}",
        "how": {"routes": [{"target": "gpt-4o-mini", "models": ["gpt-4o"], "max_input_tokens": 500}]},
        "saving_usd": saving,
        "saving_percent": saving * 2,
        "cost_before_usd": 50.0,
        "cost_after_usd": 50.0 - saving,
        "affected": {"requests": 120},
        "quality_risk": {"level": "low", "reason": "only short requests move"},
        "effort": {"size": "M", "reason": "a router looks at each request"},
        "rollback": "Send them to gpt-4o again.",
        "validation": {"sample_per_arm": 1237, "how": "Judge 1,237 answers with the change and 1,237 without."},
        "question": "",
        "missing": [],
    }
    return _json({**found, **more})


def _json(value: dict[str, object]) -> JsonObject:
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value), type=dict)


def a_record(
    tool_name: str, result: JsonObject | None, *, call_id: str = "", agent: str = "data", args: JsonObject | None = None
) -> ToolRecord:
    """Return a call that ended well."""
    return ToolRecord(call_id or f"1-{agent}.{tool_name}", agent, tool_name, args or {}, f"{tool_name} did it", result)


def options_record(*options: JsonObject, call_id: str = "2-optimizations.c1") -> ToolRecord:
    """Return a call that computed options."""
    result: JsonObject = {"dataset": DATASET, "options": list(options), "missing": []}
    return a_record("simulate_routing", result, call_id=call_id, agent="optimizations")


def citing(*records: ToolRecord, message: str = "", call_id: str = "call") -> ToolContext:
    """Return what a tool is told in a run with these calls before it."""
    kept: Sequence[ToolRecord] = list(records)
    return replace(context(message), records=lambda: kept, tool_call_id=call_id)

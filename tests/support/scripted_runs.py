"""Scripts of runs, as the product would write them: an analysis, an error, and one of every event type."""

from collections.abc import Sequence

from tests.support.scripted_bridge import Event, Frame, Pause

ANSWER = """Your workload cost **$4,212.87** between 1 and 30 June, over **48,310 requests**. Two thirds is one model.

## Where the money goes

| Model | Requests | Input tokens | Output tokens | Cost | Share |
|---|--:|--:|--:|--:|--:|
| `gpt-4o` | 12,904 | 31,482,110 | 5,204,771 | $2,816.40 | 66.9 % |
| `claude-sonnet` | 6,120 | 9,120,003 | 2,611,420 | $1,004.12 | 23.8 % |
| `gpt-4o-mini` | 29,286 | 44,017,552 | 9,870,114 | $392.35 | 9.3 % |

### What stands out

1. **Long prompts.** A tenth of the requests carries 58 % of the input tokens:
   - `support-summary` sends whole threads, 9,400 tokens at the median
   - `code-review` repeats the same 3,100-token preamble
2. **Peaks.** Weekdays from 13:00 to 15:00 UTC, 4.1 times the mean hour.

> Latency is not in this log, so nothing here says what a cheaper model would do to it.

Costs are computed from the [price catalogue](https://example.com/prices) as of the day of each request:

```sql
SELECT model, sum(cost_usd) AS cost
FROM usage GROUP BY model ORDER BY cost DESC;
```
"""

USAGE: Frame = {
    "input_tokens": 6184,
    "output_tokens": 912,
    "cached_tokens": 2048,
    "model_requests": 4,
    "tool_calls": 2,
    "cost_usd": 0.0214,
}


def tool(call_id: str, name: str, description: str, args: Frame) -> Event:
    payload: Frame = {"tool_call_id": call_id, "tool_name": name, "description": description}
    return Event("tool_executing", {**payload, "tool_args": args, "effect": "read_only"}, "data")


def done(call_id: str, name: str, summary: str, result: Frame, ms: int) -> Event:
    payload: Frame = {"tool_call_id": call_id, "tool_name": name, "status": "success", "result_summary": summary}
    rest: Frame = {"result": result, "artifact_id": "", "error": "", "execution_time_ms": ms}
    return Event("tool_completed", {**payload, **rest}, "data")


def partials(text: str, size: int = 24) -> list[Event]:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return [Event("partial_result", {"message_id": "m", "text": piece}, "reporting") for piece in pieces]


def ending(content: str, *, missing: Sequence[str] = (), suggestions: Sequence[str] = ()) -> list[Event]:
    final: Frame = {"message_id": "m", "content": content, "source": "computed", "degraded": False, "artifact_ids": []}
    final["missing_data"], final["suggestions"] = list(missing), list(suggestions)
    completed: Frame = {"agent_id": "a", "status": "success", "message": "", "execution_time_ms": 4230, "usage": USAGE}
    return [Event("final_response", final, "reporting"), Event("agent_completed", completed)]


def opening() -> list[Event | Pause]:
    """From the classification to the second tool at work, with a pause named "tool" before its result."""
    plan: Frame = {
        "stage": "planned",
        "message": "",
        "planned_steps": [
            {"agent_name": "data", "description": "Measure requests, tokens and cost by model"},
            {"agent_name": "reporting", "description": "Write the answer and say what is missing"},
        ],
    }
    classified: Frame = {"stage": "classified", "message": "A question about total cost.", "intent": "cost_analysis"}
    rows: list[Frame] = [
        {"model": "gpt-4o", "requests": 12904, "cost_usd": 2816.4, "share": 0.669},
        {"model": "claude-sonnet", "requests": 6120, "cost_usd": 1004.12, "share": 0.238},
        {"model": "gpt-4o-mini", "requests": 29286, "cost_usd": 392.35, "share": 0.093},
    ]
    described: Frame = {"rows": 48310, "columns": "timestamp, model, feature, prompt_tokens, completion_tokens"}
    return [
        Event("agent_thinking", {"thought": "Find out what is asked and which data there is to answer it.", "step": 0}),
        Event("agent_progress", {**classified, "confidence": 0.93}),
        Event("agent_progress", plan),
        Event(
            "agent_handoff",
            {
                "from_agent": "triage",
                "to_agent": "data",
                "reason": "The log has model and token counts: enough to measure.",
            },
            "triage",
        ),
        Event("agent_progress", {"stage": "step", "message": "Measuring the log", "step": 1, "total_steps": 2}, "data"),
        tool("c1", "describe_dataset", "Read the columns of june-usage.csv", {"dataset": "june-usage.csv"}),
        done("c1", "describe_dataset", "48,310 rows; model, tokens and feature recognised, no latency.", described, 84),
        tool(
            "c2",
            "cost_breakdown",
            "Break the cost down by model",
            {"dataset": "june-usage.csv", "group_by": ["model"], "price_date": "per request"},
        ),
        Pause("tool"),
        done(
            "c2",
            "cost_breakdown",
            "$4,212.87 over 3 models; gpt-4o is 66.9 % of it.",
            {"total_usd": 4212.87, "by_model": rows},
            1260,
        ),
        Event(
            "agent_handoff",
            {"from_agent": "data", "to_agent": "reporting", "reason": "Everything is measured."},
            "data",
        ),
        Event(
            "agent_progress",
            {"stage": "step", "message": "Writing the answer", "step": 2, "total_steps": 2},
            "reporting",
        ),
    ]


def analysis() -> list[Event | Pause]:
    """A whole analysis; stands still at "tool", "half" (of the text) and "end"."""
    pieces = partials(ANSWER)
    half = len(pieces) // 3
    closing = ending(
        ANSWER,
        missing=["Latency: the log has no duration column."],
        suggestions=["What would gpt-4o-mini cost for this traffic?", "Which features drive the input tokens?"],
    )
    return [*opening(), *pieces[:half], Pause("half"), *pieces[half:], Pause("end"), *closing]


def failure() -> list[Event | Pause]:
    """A run whose model goes away."""
    failed: Frame = {"tool_call_id": "c2", "tool_name": "cost_breakdown", "status": "timeout", "result_summary": ""}
    error: Frame = {
        "reason": "MODEL_UNAVAILABLE",
        "error_id": "8f21c6d0",
        "message": "The language model did not answer, three times in a row. Your data and the steps so far are kept.",
        "retryable": True,
        "recovery_suggestions": ["Try again in a minute.", "Ask without a model: the built-in one answers offline."],
        "execution_time_ms": 12400,
        "usage": USAGE,
    }
    rest: Frame = {"result": None, "artifact_id": "", "error": "No answer within 10 s.", "execution_time_ms": 10000}
    begun = [item for item in opening() if not isinstance(item, Pause)][:8]
    return [*begun, Event("tool_completed", {**failed, **rest}, "data"), Event("agent_error", error)]

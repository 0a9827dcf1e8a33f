"""The tool duplicate_prompts: what was asked before, and what answering from a cache would have saved."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.redaction import redact
from agent_service.engine.tool import ToolContext, ToolOutput
from agent_service.tools.analysis import (
    PricedArgs,
    Workbench,
    bounded,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
    pricing_part,
    unused_part,
)
from agent_service.tools.facts import Facts
from agent_service.tools.measures import clip, counted, moment, rounded, whole
from agent_service.tools.pricing import price, usd
from agent_service.tools.reading import Profile, Reading
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Cell

MAX_CLIP_CHARACTERS: Final = 60
"""Of a prompt that a result shows."""

MAX_WINDOW_MINUTES: Final = 60 * 24 * 365
DEFAULT_WINDOW_MINUTES: Final = 60 * 24
"""A day: how long after a request its answer may be given again."""

MAX_SHOWN_GROUPS: Final = 20

NORMALISED: Final = "lower case, white space as one blank, without punctuation at the end"
"""What makes two prompts the same in the second count."""

_HASH: Final = re.compile(r"(?:[a-z0-9]+:)?(?:[0-9a-f]{8,}|[0-9a-f-]{32,36}|[A-Za-z0-9+/_-]{20,}={0,2})", re.IGNORECASE)


class DuplicatePromptsArgs(PricedArgs):
    """Arguments of duplicate_prompts."""

    window_minutes: int = Field(
        default=DEFAULT_WINDOW_MINUTES,
        ge=1,
        le=MAX_WINDOW_MINUTES,
        description="A repeat counts as saved when it comes within so many minutes after the same prompt before it.",
    )
    top: int = Field(default=10, ge=1, le=MAX_SHOWN_GROUPS, description="The most repeated prompts that are shown.")


async def duplicate_prompts(bench: Workbench, context: ToolContext, args: DuplicatePromptsArgs) -> ToolOutput:
    """Find repeated prompts."""
    async with bench.load(context, args, _keys) as (opened, facts):
        pricing = await price(facts, args.assume_model, bench.clock.now())
        fixed: dict[str, JsonValue] = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "mapping": mapping_part(facts),
            "unused_columns": unused_part(facts),
            "notes": notes_part(facts),
            "window_minutes": args.window_minutes if Role.TIMESTAMP in facts.readings else None,
            "normalisation": NORMALISED,
            "rules": _rules(facts),
            "pricing": {"source": pricing.source, "assumed_model": pricing.assumed_model or None},
        }
        if Role.PROMPT not in facts.readings:
            empty: JsonObject = {"requests": facts.matched, "exact": None, "normalised": None, "groups": []}
            gone: JsonObject = {"groups_not_shown": 0, "missing": missing_part(facts.missing(Role.PROMPT))}
            text = f"{opened.session.name} has no prompts, so repeated ones cannot be found"
            return ToolOutput(text, {**fixed, **empty, **gone})
        await context.progress("Columns recognised, looking for the same prompts", 0.4)
        wanted = [Role.TIMESTAMP, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS]
        fixed["missing"] = missing_part(facts.missing(*wanted, *([] if pricing.priced else [Role.MODEL])))
        fixed["requests"] = facts.matched
        fixed["pricing"] = pricing_part(pricing)
        exact = await _repeats(facts, "prompt_key", args.window_minutes)
        fixed["exact"] = exact
        fixed["normalised"] = None if _is_hash(facts) else await _repeats(facts, "prompt_plain", args.window_minutes)
        key = "prompt_key" if _is_hash(facts) else "prompt_plain"

        async def make(top: int) -> JsonObject:
            shown, left = await _groups(facts, key, args.window_minutes, top)
            return {**fixed, "groups": shown, "groups_not_shown": left}

        result = await bounded(args.top, make)
    return ToolOutput(_summary(opened.session.name, exact), result)


def _keys(readings: Mapping[Role, Reading], _: Sequence[Profile]) -> dict[str, str]:
    """Return what is kept of a prompt: two digests and a short piece, never the whole."""
    reading = readings.get(Role.PROMPT)
    if reading is None:
        return {}
    text = reading.expression
    plain = f"regexp_replace(lower(trim(regexp_replace({text}, '\\s+', ' ', 'g'))), '[ .!?…]+$', '')"
    return {
        "prompt_key": f"md5_number({text})",
        "prompt_plain": f"md5_number({plain})",
        "prompt_clip": f"left({text}, {MAX_CLIP_CHARACTERS + 1})",
    }


def _is_hash(facts: Facts) -> bool:
    """Return whether the column holds digests, of which no two are the same but for white space or case."""
    column = facts.readings[Role.PROMPT].column
    examples = next((p.examples for p in facts.profiles if p.name == column), ())
    return bool(examples) and all(_HASH.fullmatch(example) and re.search(r"\d", example) for example in examples)


def _repeated(facts: Facts, key: str, window_minutes: int) -> str:
    """Return SQL: each request with whether a cache would have answered it (`saved`), as `simulate_caching` counts.

    It would when the same model had answered the same prompt at most the window before; what failed leaves no answer.
    """
    timed = Role.TIMESTAMP in facts.readings
    order = "ts" if timed else "failed IS TRUE"
    answered = "CASE WHEN failed IS NOT TRUE THEN ts END" if timed else "failed IS NOT TRUE"
    before = f"last_value({answered} IGNORE NULLS) OVER same" if timed else f"bool_or({answered}) OVER same"
    saved = f"ts - {before} <= INTERVAL {window_minutes} MINUTE" if timed else before
    return (
        f"SELECT {key} AS same_key, prompt_clip, prompt_key, ts, cost, "
        "coalesce(input_tokens, 0) + coalesce(output_tokens, 0) AS tokens, "
        f"coalesce({saved}, false) AS saved FROM priced WHERE {key} IS NOT NULL "
        f"WINDOW same AS (PARTITION BY {key}, model ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    )


async def _repeats(facts: Facts, key: str, window_minutes: int) -> JsonObject:
    ((groups, repeats, tokens, cost, all_tokens, all_cost, asked),) = (
        await facts.session.run(
            f"WITH r AS ({_repeated(facts, key, window_minutes)}) "
            "SELECT (SELECT count(*) FROM (SELECT same_key FROM r GROUP BY same_key HAVING count(*) > 1)), "
            "count_if(saved), sum(tokens) FILTER (saved), sum(cost) FILTER (saved), "
            "(SELECT sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FROM priced), "
            "(SELECT sum(cost) FROM priced), (SELECT count(*) FROM priced) FROM r"
        )
    ).rows
    saved_tokens, every_token = whole(tokens) or 0, whole(all_tokens) or 0
    saved_cost, every_cost = _units(cost) or 0, _units(all_cost)
    return {
        "groups": whole(groups),
        "repeats": whole(repeats),
        "share_of_requests": _share(whole(repeats) or 0, whole(asked) or 0),
        "tokens": saved_tokens if every_token else None,
        "share_of_tokens": _share(saved_tokens, every_token),
        "cost_usd": None if every_cost is None else float(usd(saved_cost)),
        "share_of_cost": None if every_cost is None else _share(saved_cost, every_cost),
    }


async def _groups(facts: Facts, key: str, window_minutes: int, top: int) -> tuple[list[JsonValue], int]:
    """Return the prompts whose repeats cost most, then those that have most repeats; and how many more there are."""
    rows = (
        await facts.session.run(
            f"WITH r AS ({_repeated(facts, key, window_minutes)}), "
            "g AS (SELECT min(prompt_clip) AS clip, count(*) AS requests, count_if(saved) AS repeats, "
            "count(DISTINCT prompt_key) AS wordings, sum(tokens) FILTER (saved) AS tokens, "
            "sum(cost) FILTER (saved) AS units, epoch_us(min(ts)) AS first, epoch_us(max(ts)) AS last, same_key "
            "FROM r GROUP BY same_key HAVING count(*) > 1) "
            "SELECT clip, requests, repeats, wordings, tokens, units, first, last, count(*) OVER () FROM g "
            f"ORDER BY units DESC NULLS LAST, repeats DESC, requests DESC, clip, same_key LIMIT {top}"
        )
    ).rows
    shown: list[JsonValue] = [_group(row) for row in rows]
    return shown, (whole(rows[0][8]) or 0) - len(rows) if rows else 0


def _group(row: Sequence[Cell]) -> JsonObject:
    clipped = redact({"prompt": clip(" ".join(str(row[0]).split()), MAX_CLIP_CHARACTERS)})
    units = _units(row[5])
    return {
        "prompt": clipped["prompt"],
        "requests": whole(row[1]),
        "repeats": whole(row[2]),
        "wordings": whole(row[3]),
        "tokens": whole(row[4]) or 0,
        "cost_usd": None if units is None else float(usd(units)),
        "first": moment(row[6]),
        "last": moment(row[7]),
    }


def _units(value: Cell) -> int | None:
    return None if value is None else int(str(value))


def _share(part: int, whole_: int) -> float | None:
    return rounded(part / whole_, 6) if whole_ else None


def _rules(facts: Facts) -> list[str]:
    rules = ["A repeat counts where the same model had answered the same prompt before it, within the window."]
    if Role.TIMESTAMP not in facts.readings:
        rules = ["There are no times: every repeat of a prompt at the same model counts, however late it came."]
    if Role.MODEL not in facts.readings:
        rules.append("There is no model column: the same prompt counts whatever model answered it.")
    if Role.STATUS in facts.readings:
        rules.append("Failed requests are left out: they have no answer to give again.")
    return [*rules, "What a cache costs itself, and answers that have to be fresh, are not in it."]


def _summary(name: str, exact: JsonObject) -> str:
    repeats = int(str(exact["repeats"]))
    if not repeats:
        return f"No prompt of {name} repeats within the window"
    share, cost = exact["share_of_requests"], exact["cost_usd"]
    text = f"{counted(repeats, 'request')} of {name} ({float(str(share)):.1%}) repeat an earlier prompt"
    return text if cost is None else f"{text}; a cache could have saved {float(str(cost)):,.2f} USD"

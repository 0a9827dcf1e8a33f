"""The SQL of a policy: every row of `sim` as it would be.

Beside the columns of `sim` a row has: target (its model then), hit (answered from the cache), batched, sent (input
tokens then), after (cost then, units), later (latency then, ms; NULL where that is not known), touched (whether the
policy changes it), unsimulated (it has a cost, but the catalogue has no price to compute the new one by).
"""

from collections.abc import Sequence

from agent_service.tools.optimization.policy import MAX_TOKENS, Policy, PrefixRule, RouteRule, Rule, TrimRule
from agent_service.tools.optimization.tariffs import Tariffs
from agent_service.tools.pricing import KnownModel
from agent_service.tools.sandbox_child.sql import sql_text

_NO_LIMIT = MAX_TOKENS * 1_000


def after(policy: Policy, tariffs: Tariffs, *, cached_within: bool) -> str:
    """Return one SELECT. `tariffs` must know the policy's models; `cached_within`: cached tokens are part of the input.

    `least` and `greatest` of DuckDB skip NULLs, so what is not known is kept apart by hand.
    """
    routed = (
        f"SELECT *, {_target(policy, tariffs)} AS target, {_hit(policy)} AS hit, {_sent(policy.trims)} AS sent FROM sim"
    )
    kept = (
        "CASE WHEN cached_tokens IS NOT NULL THEN least(cached_tokens, sent) END" if cached_within else "cached_tokens"
    )
    batched = f"SELECT *, {kept} AS kept, {_batched(policy, tariffs)} AS batched FROM ({routed})"
    plain = f"SELECT *, {plain_tokens('sent', 'kept', within=cached_within)} AS plain FROM ({batched})"
    warm, cold = _prefix(policy.prefix)
    moved = f"SELECT *, {warm} AS warm_tokens, {cold} AS cold_tokens FROM ({plain})"
    listed = (
        "(plain - warm_tokens - cold_tokens) * per_input + output_tokens * per_output "
        "+ (coalesce(kept, 0) + warm_tokens) * per_cached + cold_tokens * per_written + per_request"
    )
    touched = (
        "hit OR batched OR target IS DISTINCT FROM key OR sent IS DISTINCT FROM input_tokens OR warm_tokens > 0 "
        "OR cold_tokens > 0"
    )
    priced = (
        f"SELECT r.*, {listed} AS then_listed, new_pace.pace / nullif(old_pace.pace, 0) AS pace, {touched} AS touched "
        f"FROM ({moved}) r LEFT JOIN tariffs ON {tariffs.joined('target', 'sent', batch='batched')} "
        "LEFT JOIN paces new_pace ON new_pace.pace_model = target LEFT JOIN paces old_pace ON old_pace.pace_model = key"
    )
    later = (
        "CASE WHEN hit THEN 0.0 WHEN batched THEN NULL WHEN target IS DISTINCT FROM key THEN latency * pace "
        "ELSE latency END"
    )
    unsimulated = "cost IS NOT NULL AND NOT hit AND (then_listed IS NULL OR listed IS NULL OR listed = 0)"
    judged = f"SELECT *, {later} AS later, {unsimulated} AS unsimulated FROM ({priced})"
    cost = (
        "CASE WHEN NOT touched OR cost IS NULL THEN cost WHEN hit THEN cost * 0 WHEN unsimulated THEN cost "
        "WHEN cost = listed THEN then_listed "
        "ELSE CAST(round(cost::DOUBLE * (then_listed::DOUBLE / listed::DOUBLE)) AS HUGEINT) END"
    )
    return f"SELECT *, {cost} AS after FROM ({judged})"


def plain_tokens(sent: str, cached: str, *, within: bool) -> str:
    """Return the SQL of the tokens that are priced as ordinary input."""
    return f"CASE WHEN {sent} IS NOT NULL THEN greatest({sent} - coalesce({cached}, 0), 0) END" if within else sent


def matches(rule: Rule) -> str:
    """Return the SQL condition that a rule is about a row; names match without regard to case."""
    parts = ["true"]
    for column, names in (("key", rule.models), ("feature", rule.features)):
        if names:
            wanted = ", ".join(f"lower({sql_text(name.strip())})" for name in names)
            parts.append(f"coalesce(lower({column}) IN ({wanted}), false)")
    return " AND ".join(parts)


def _target(policy: Policy, tariffs: Tariffs) -> str:
    """Return the model of a row: that of the first rule that matches, unless the request is too long for it."""
    cases = []
    for rule in policy.routes:
        window = tariffs.windows.get(rule.target)
        fits = f" AND coalesce(input_tokens + output_tokens <= {window}, true)" if window else ""
        if isinstance(tariffs.known.get(rule.target), KnownModel):
            cases.append(f"WHEN {matches(rule)}{_sizes(rule)}{fits} THEN {sql_text(rule.target)}")
    return f"CASE {' '.join(cases)} ELSE key END" if cases else "key"


def _sizes(rule: RouteRule) -> str:
    bounds = (
        ("input_tokens", ">=", rule.min_input_tokens),
        ("input_tokens", "<=", rule.max_input_tokens),
        ("output_tokens", ">=", rule.min_output_tokens),
        ("output_tokens", "<=", rule.max_output_tokens),
    )
    given = [(column, sign, limit) for column, sign, limit in bounds if limit is not None]
    return "".join(f" AND coalesce({column} {sign} {limit}, false)" for column, sign, limit in given)


def _hit(policy: Policy) -> str:
    if policy.cache is None:
        return "false"
    lives = "again_us IS NOT NULL" if policy.cache.ttl_s is None else f"again_us <= {policy.cache.ttl_s * 1_000_000}"
    return f"({matches(policy.cache)} AND coalesce({lives}, false))"


def _sent(trims: Sequence[TrimRule]) -> str:
    sent = "input_tokens"
    for rule in trims:
        if rule.max_input_tokens is not None:
            sent = f"least({sent}, CASE WHEN {matches(rule)} THEN {rule.max_input_tokens} ELSE {_NO_LIMIT} END)"
        else:
            left = 100 - (rule.percent or 0)
            sent = f"CAST(round({sent} * CASE WHEN {matches(rule)} THEN {left!r} ELSE 100.0 END / 100) AS BIGINT)"
    return f"CASE WHEN input_tokens IS NOT NULL THEN {sent} END" if trims else sent


def _batched(policy: Policy, tariffs: Tariffs) -> str:
    priced = [name for name, found in tariffs.batch.items() if isinstance(found, KnownModel)]
    if not policy.batches or not priced:
        return "false"
    rules = []
    for rule in policy.batches:
        hours = f" AND coalesce(hour(ts) IN ({', '.join(map(str, rule.hours))}), false)" if rule.hours else ""
        rules.append(f"({matches(rule)}{hours})")
    names = ", ".join(sql_text(name) for name in priced)
    return f"(NOT hit AND coalesce(target IN ({names}), false) AND ({' OR '.join(rules)}))"


def _prefix(rule: PrefixRule | None) -> tuple[str, str]:
    """Return how many tokens of a row come from the provider's cache in addition, and how many are written to it."""
    if rule is None:
        return "0", "0"
    moved = f"least(greatest({rule.tokens} - coalesce(kept, 0), 0), plain)"
    fits = f"NOT hit AND {matches(rule)} AND coalesce(sent >= {rule.tokens}, false)"
    is_warm = f"coalesce(idle_us <= {rule.ttl_s * 1_000_000}, false)"
    return (
        f"CASE WHEN {fits} AND {is_warm} THEN {moved} ELSE 0 END",
        f"CASE WHEN {fits} AND NOT {is_warm} THEN {moved} ELSE 0 END",
    )

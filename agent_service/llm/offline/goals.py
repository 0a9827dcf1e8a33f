"""Targets, limits and expectations: "-20 % cost, 2x faster, +30 % usage", "below $500 a month", "500 RPM"."""

import re
from typing import Final

from agent_service.llm.offline.entities import Goal
from agent_service.llm.offline.numbers import FRACTIONS, NUMBER, number

_PERCENT: Final = re.compile(r"(?P<sign>[+-]?)\s?(?P<amount>\d+(?:[.,]\d+)?)\s?(?:%|percent\b|per cent\b|pct\b)")
_PART: Final = "|".join(sorted(FRACTIONS, key=len, reverse=True))
_FRACTION: Final = re.compile(
    rf"\bby (?:an? |one )?(?P<word>{_PART})\b|\b(?:an?|one) (?P<off>{_PART}) (?:off|less|cheaper|lower|more|of)\b"
)
_TIMES: Final = re.compile(
    r"\b(?P<amount>\d+(?:\.\d+)?) ?(?:x|times)(?= |$|[.,!?])"
    r"|\b(?P<word>half(?! an? (?:million|thousand|hundred|dozen|day|hour|year))|halve|halves|halved|halving|double|"
    r"doubles|doubled|doubling|twice|triple|triples|tripled|tripling|quadruple\w*|(?:two|three|four|five|ten) times|"
    r"tenfold)\b"
)
_MULTIPLES: Final = {
    "hal": 0.5, "dou": 2.0, "twi": 2.0, "two": 2.0, "tri": 3.0, "thr": 3.0, "qua": 4.0, "fou": 4.0, "fiv": 5.0,
    "ten": 10.0,
}  # fmt: skip
_USD: Final = re.compile(
    r"(?:\$|\busd) ?(?P<a>\d[\d,]*(?:\.\d+)?)\s?(?P<ka>k|m|million|thousand)?\b"
    r"|\b(?P<b>\d[\d,]*(?:\.\d+)?)\s?(?P<kb>k|m|million|thousand)? ?(?:usd|dollars?|bucks)\b"
)
_SCALES: Final = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}
_TIME: Final = re.compile(
    r"(?:\b(?:below|under|within|less than|at most|max(?:imum)?(?: of)?|no more than|to)|[<≤]=?) ?"
    r"(?P<amount>\d[\d,]*(?:\.\d+)?) ?(?P<unit>ms|msecs?|milliseconds?|s|secs?|seconds?)\b"
)
_METRICS: Final = tuple(
    (name, re.compile(words))
    for name, words in (
        ("latency", r"\b(?:latenc\w+|fast\w*|slow\w*|speed\w*|quick\w*|response times?|p9\d|p50|delay\w*)\b"),
        ("quality", r"\b(?:quality|accura\w+|as good)\b"),
        ("errors", r"\b(?:errors?|failures?|fail\w*|timeouts?)\b"),
        (
            "cost",
            r"\b(?:costs?|spend\w*|bills?|budgets?|price\w*|money|expens\w+|cheap\w*|invoice\w*|sav\w+|dollars?)\b|\$",
        ),
        (
            "usage",
            r"\b(?:usage|traffic|volume|requests?|growth|grow\w*|load|demand|users?|customers?|tokens?|calls?)\b",
        ),
    )
)
_LESS: Final = re.compile(
    r"\b(?:cut\w*|reduc\w+|lower\w*|decreas\w+|less|sav(?:e|es|ing|ings)|drop\w*|trim\w*|slash\w*|shrink\w*|down|shav\w*|"
    r"fewer|cheaper|off|bring|faster|quicker|speed\w*|declin\w+|below)\b"
)
_MORE: Final = re.compile(
    r"\b(?:increas\w+|grow\w*|growth|more|ris\w+|raise\w*|higher|up|additional|extra|expect\w*|surge\w*)\b"
)
_KEEP: Final = re.compile(
    r"\b(?:keep\w*|maintain\w*|preserv\w+|same|hold(?:ing)?|unchanged|intact|constant|as good|"
    r"without (?:losing|hurting|degrading|touching|sacrificing|any loss|(?:spending|paying|costing) more)|"
    r"no (?:loss|drop|worse)|not? (?:touch|hurt|drop|suffer|lose)|"
    r"(?:don't|mustn't|must not|should not|shouldn't|can't|cannot) (?:touch|hurt|drop|suffer|lose|fall|get worse))\b"
)
_CLAUSE: Final = re.compile(r"[;!?]|,(?!\d)|\.(?!\d)|\b(?:and|but|while|with)\b|\b(?=(?:without|if|when|at) )")

_LIMIT: Final = re.compile(
    rf"(?P<count>{NUMBER}) ?(?:(?P<short>rpm|tpm|rps|qps)\b|(?P<what>requests?|calls?|tokens?|queries)"
    r" ?(?:per|a|an|each|every|/) ?(?P<time>min(?:ute)?s?|sec(?:ond)?s?|s|m)\b)"
    r"|\b(?P<named>rpm|tpm|rps|qps)(?: limits?)?(?: (?:is|of|at|limit|=)|[:=])* ?(?P<after>" + NUMBER + r")"
)
_SECONDS_PER_MINUTE: Final = 60


def find_goals(text: str, *, talked_of: str = "") -> tuple[Goal, ...]:
    """Return at most one goal for each metric: a clause that names a metric and a number, or asks to keep it.

    A number without a metric is of the metric that is being talked of, if any: "what about 40 %?".
    """
    goals: dict[str, Goal] = {}
    for clause in _CLAUSE.split(_LIMIT.sub(" ", text)):
        goal = _goal(clause, talked_of)
        if goal is not None:
            goals.setdefault(goal.metric, goal)
    return tuple(goals.values())


def find_limits(text: str) -> tuple[tuple[str, int], ...]:
    """Return the limits named, as `rpm` (requests per minute) and `tpm` (tokens per minute), each at most once."""
    limits: dict[str, int] = {}
    for match in _LIMIT.finditer(text):
        said = match["short"] or match["named"] or ""
        tokens = said == "tpm" or (match["what"] or "").startswith("token")
        per_second = said in {"rps", "qps"} or (match["time"] or "").startswith("s")
        value = number(match["count"] or match["after"]) * (_SECONDS_PER_MINUTE if per_second else 1)
        limits.setdefault("tpm" if tokens else "rpm", round(value))
    return tuple((name, limits[name]) for name in ("rpm", "tpm") if limits.get(name, 0) > 0)


def _goal(clause: str, talked_of: str) -> Goal | None:
    named = next((name for name, words in _METRICS if words.search(clause)), "")
    metric = named or talked_of
    if not metric:
        return None
    amount = _usd(clause) if metric == "cost" else None
    change = _change(clause, metric)
    if metric == "latency" and change is None and (time := _TIME.search(clause)):
        return Goal(
            metric, limit_ms=float(time["amount"].replace(",", "")) * (1 if time["unit"].startswith("m") else 1_000)
        )
    if change is None and amount is None:
        return Goal(metric, 0.0) if named and _KEEP.search(clause) else None
    return Goal(metric, change, amount)


def _change(clause: str, metric: str) -> float | None:
    """Return the change in percent, negative for less."""
    percent = _PERCENT.search(clause)
    if percent:
        amount = float(percent["amount"].replace(",", "."))
        if percent["sign"]:
            return amount if percent["sign"] == "+" else -amount
        return -amount if _shrinks(clause, metric) else amount
    part = _FRACTION.search(clause)
    if part:
        amount = FRACTIONS[part["word"] or part["off"]] * 100
        return -amount if _shrinks(clause, metric) else amount
    times = _TIMES.search(clause)
    if not times:
        return None
    factor = float(times["amount"]) if times["amount"] else _MULTIPLES[times["word"][:3]]
    if not factor:
        return None
    shrinks = metric == "latency" or (_LESS.search(clause) is not None and factor > 1)
    return (1 / factor - 1) * 100 if shrinks and factor > 1 else (factor - 1) * 100


def _shrinks(clause: str, metric: str) -> bool:
    return _LESS.search(clause) is not None or not (_MORE.search(clause) or metric == "usage")


def _usd(clause: str) -> float | None:
    """Return the amount in US dollars; of "from $900 to $600" the second, which is the target."""
    found = list(_USD.finditer(clause))
    if not found:
        return None
    aimed = [match for match in found if re.search(r"\bto $", clause[: match.start()])]
    match = (aimed or found)[0]
    amount, scale = (match["a"], match["ka"]) if match["a"] else (match["b"], match["kb"])
    return float(amount.replace(",", "")) * _SCALES.get(scale or "", 1.0)

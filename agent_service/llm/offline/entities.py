"""What a message names: models, dimensions, features, files, times, goals, corrections of columns, SQL."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent_service.engine.events import JsonValue
from agent_service.llm.offline.dates import ALWAYS, Period, find_period
from agent_service.llm.offline.words import READ_CHARACTERS, read_words

_MODEL: Final = re.compile(
    r"\b(?:"
    r"gpt[- ]?\d(?:\.\d)?o?(?:[- ](?:mini|nano|turbo|pro|codex|preview|audio|chat|latest))*"
    r"(?:-\d{4}-\d{2}-\d{2}|-\d{4})?"
    r"|chatgpt-4o-latest"
    r"|o[134](?:[- ](?:mini|pro|preview))?"
    r"|claude[- ](?:(?:instant|sonnet|opus|haiku)(?:[- ]\d(?:[.-]\d)?)?|\d(?:[.-]\d)?(?:[- ](?:sonnet|opus|haiku))?)"
    r"(?:-\d{8}|-latest)?"
    r"|(?:sonnet|opus|haiku)[- ]\d(?:[.-]\d)?"
    r"|gemini[- ]\d(?:\.\d)?(?:[- ](?:pro|flash|lite|ultra|nano|preview|exp))*"
    r"|(?:llama|mistral|mixtral|ministral|codestral|deepseek|qwen|grok|command|nova|phi|gemma|kimi|glm)"
    r"[- ]?(?:v?\d[\w.:]*|(?:large|small|medium|nemo|chat|coder|reasoner|r1|v3|r|lite|pro|micro|instruct)\b)"
    r"(?:[- ](?:\d[\w.:]*|large|small|medium|mini|instruct|chat|coder|plus|lite|pro|micro|turbo|fast|latest)\b)*"
    r")"
)
_ASSUME_BEFORE: Final = re.compile(
    r"(?:\b(?:assum(?:e|es|ed|ing)|suppos(?:e|ing)|presum(?:e|ing)|pretend(?:ing)?)\b[^.?!;]{0,40}"
    r"|\b(?:treat|take|count|consider|price|cost)\b[^.?!;]{0,30}\b(?:as|at|with|like)(?: if)?(?: it| they| all)?"
    r"(?: (?:is|was|were|are))?"
    r"|\b(?:it|they|that|these|those|everything|all(?: of (?:it|them))?|all requests|all calls|the model|our model|"
    r"the traffic|this)(?:'s|'re| is| was| were| are| ran on| runs on| ran with| go(?:es)? to| went to)(?: all)?"
    r"|\bwe(?:'re| only| always| just)? (?:use|used|run|ran|call|called|are using|were using)"
    r"|^(?:use|with|as|on|it's|then|ok|okay|yes))[\s,:]*(?:the model )?[\"'`]?$"
)
_WOULD: Final = re.compile(
    r"\b(?:would|if|instead|what about|switch\w*|mov(?:e|ed|ing)|migrat\w+|chang\w+|replac\w+)\b"
)

_DIMENSIONS: Final = (
    ("model", r"models?|llms?"),
    ("feature", r"features?|use cases?|endpoints?|products?|apps?|applications?|services?|teams?|departments?"),
    ("user", r"users?|customers?|clients?|accounts?|tenants?|persons?|people"),
    ("day", r"days?|dates?|weeks?|months?"),
    ("hour", r"hours?"),
    ("weekday", r"weekdays?|days? of the week"),
    ("status", r"status(?:es)?|outcomes?"),
)
_BY: Final = (
    r"(?:\b(?:by|per|across|for each|for every|for all|split by|grouped by|group by|broken down by|each|every|which|"
    r"what|top(?: \d+)?|over|between|among)\b(?: (?:the|our|my|single|different|most expensive|costliest|slowest|"
    r"biggest|largest|heaviest))*|,|\band)\s+"
)
_ADVERBS: Final = {"daily": "day", "hourly": "hour", "weekly": "day", "monthly": "day", "who": "user", "whose": "user"}

_QUOTED: Final = r"[\"'`](?P<{0}>[\w][\w .-]{{0,60}}?)[\"'`]"
_FEATURE: Final = re.compile(
    r"\bfeatures?(?: called| named)? (?:" + _QUOTED.format("q1") + r"|(?P<n1>[a-z0-9][\w.-]*))"
    r"|\b(?:the|our) (?:" + _QUOTED.format("q2") + r"|(?P<n2>[a-z0-9][\w.-]*)) (?:feature|endpoint|use case)\b"
)
_NO_FEATURE: Final = frozenset(read_words("no_feature_words.txt"))
"""What stands beside the word feature without being the name of one."""
_FILE: Final = re.compile(r"[\w][\w.()+@-]*\.(?:csv|tsv|jsonl|ndjson|json|parquet)(?:\.gz)?\b", re.IGNORECASE)

_ROLES: Final = (
    "timestamp|time|input tokens|input_tokens|prompt tokens|output tokens|output_tokens|completion tokens|"
    "cached tokens|model|latency|duration|cost|status|feature|user|prompt"
)
_ROLE_NAMES: Final = {
    "time": "timestamp",
    "input tokens": "input_tokens",
    "prompt tokens": "input_tokens",
    "output tokens": "output_tokens",
    "completion tokens": "output_tokens",
    "cached tokens": "cached_tokens",
    "duration": "latency",
}
_NAME: Final = r"[\"'`]?(?P<name>[A-Za-z_][\w.]*)[\"'`]?"
_CORRECTIONS: Final = (
    re.compile(
        rf"\bcolumn {_NAME} (?:is|holds|means|contains|has|as) (?:the |our |my )?(?P<role>{_ROLES})\b", re.IGNORECASE
    ),
    re.compile(
        rf"\b(?:use|take|treat|read) (?:the )?(?:column )?{_NAME} as (?:the )?(?P<role>{_ROLES})\b", re.IGNORECASE
    ),
    re.compile(rf"\b(?P<role>{_ROLES}) is (?:in )?(?:the )?column {_NAME}(?=\W|$)", re.IGNORECASE),
)
_SQL: Final = re.compile(r"\b(?:select|with)\b.+\bfrom\b.+", re.IGNORECASE | re.DOTALL)

_PERCENT: Final = re.compile(r"(?P<sign>[+-]?)\s?(?P<amount>\d+(?:[.,]\d+)?)\s?(?:%|percent\b|per cent\b|pct\b)")
_TIMES: Final = re.compile(
    r"\b(?P<amount>\d+(?:\.\d+)?) ?(?:x|times)(?= |$|[.,!?])|\b(?P<word>half|halve|halved|halving|double|doubles|"
    r"doubled|doubling|twice|triple|triples|tripled)\b"
)
_MULTIPLES: Final = {"hal": 0.5, "dou": 2.0, "twi": 2.0, "tri": 3.0}
_USD: Final = re.compile(
    r"(?:\$|\busd) ?(?P<a>\d[\d,]*(?:\.\d+)?)\s?(?P<ka>k|m|million|thousand)?\b"
    r"|\b(?P<b>\d[\d,]*(?:\.\d+)?)\s?(?P<kb>k|m|million|thousand)? ?(?:usd|dollars?|bucks)\b"
)
_SCALES: Final = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}
_METRICS: Final = (
    ("latency", r"\b(?:latenc\w+|fast\w*|slow\w*|speed\w*|quick\w*|response times?|p9\d|p50|delay\w*)\b"),
    ("quality", r"\b(?:quality|accura\w+|as good)\b"),
    ("errors", r"\b(?:errors?|failures?|fail\w*|timeouts?)\b"),
    (
        "cost",
        r"\b(?:costs?|spend\w*|bills?|budgets?|price\w*|money|expens\w+|cheap\w*|invoice\w*|sav\w+|dollars?)\b|\$",
    ),
    ("usage", r"\b(?:usage|traffic|volume|requests?|growth|grow\w*|load|demand|users?|customers?|tokens?|calls?)\b"),
)
_LESS: Final = re.compile(
    r"\b(?:cut\w*|reduc\w+|lower\w*|decreas\w+|less|sav(?:e|es|ing|ings)|drop\w*|trim\w*|slash\w*|shrink\w*|down|"
    r"fewer|cheaper|off|bring|faster|quicker|speed\w*|declin\w+|below)\b"
)
_MORE: Final = re.compile(
    r"\b(?:increas\w+|grow\w*|growth|more|ris\w+|raise\w*|higher|up|additional|extra|expect\w*|surge\w*)\b"
)
_KEEP: Final = re.compile(
    r"\b(?:keep\w*|maintain\w*|preserv\w+|without (?:losing|hurting|degrading|touching|sacrificing)|same|hold\w*)\b"
)
_CLAUSE: Final = re.compile(r"[;!?]|,(?!\d)|\.(?!\d)|\b(?:and|but|while|with)\b")


MAX_SQL_CHARACTERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Goal:
    """A target or an expectation. `change_percent` below 0 means less; None where no number was said."""

    metric: str
    change_percent: float | None = None
    amount_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Entities:
    """What a message names, in order. `columns` maps a canonical column to the file's own.

    `rows`, `days`, `seed` and `preset` are of a workload to be made, `corpus` names a knowledge base, `query` is what
    to search it for, `change_time` is when something changed (UTC).
    """

    models: tuple[str, ...] = ()
    assume_model: str = ""
    group_by: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    period: Period = ALWAYS
    goals: tuple[Goal, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    sql: str = ""
    rows: int | None = None
    days: int | None = None
    seed: int | None = None
    preset: str = ""
    corpus: str = ""
    query: str = ""
    change_time: datetime | None = None

    def over(self, earlier: "Entities") -> "Entities":
        """Return these, and what only an earlier message named: for a message that goes on with that one."""
        return replace(
            earlier,
            models=self.models or earlier.models,
            assume_model=self.assume_model or earlier.assume_model,
            group_by=self.group_by or earlier.group_by,
            features=self.features or earlier.features,
            files=self.files or earlier.files,
            period=self.period if self.period != ALWAYS else earlier.period,
            goals=self.goals or earlier.goals,
            columns=tuple({**dict(earlier.columns), **dict(self.columns)}.items()),
            sql=self.sql,
            rows=self.rows if self.rows is not None else earlier.rows,
            days=self.days if self.days is not None else earlier.days,
            seed=self.seed if self.seed is not None else earlier.seed,
            preset=self.preset or earlier.preset,
            corpus=self.corpus or earlier.corpus,
            query=self.query or earlier.query,
            change_time=self.change_time or earlier.change_time,
        )

    def dataset_arguments(self) -> dict[str, JsonValue]:
        """Return the arguments of a data tool that say which dataset is meant, and how its columns are to be read."""
        arguments: dict[str, JsonValue] = {}
        if self.files:
            arguments["dataset_id"] = self.files[0]
        if self.columns:
            arguments["columns"] = dict(self.columns)
        return arguments


def find_entities(message: str, normalised: str, now: datetime) -> Entities:
    """Return what a message names; `normalised` is the same message, normalised."""
    models, assumed = _models(normalised)
    sql = _SQL.search(message[:MAX_SQL_CHARACTERS])
    head = message[:READ_CHARACTERS]
    files = tuple(dict.fromkeys(_FILE.findall(head)))
    return Entities(
        models=models,
        assume_model=assumed,
        group_by=_group_by(normalised),
        features=_features(head.lower()),
        files=files,
        period=find_period(normalised, now),
        goals=_goals(normalised),
        columns=_columns(head),
        sql=sql[0].strip().strip("`").rstrip("; \n") if sql and re.search(r"\bselect\b", sql[0], re.IGNORECASE) else "",
    )


def _models(text: str) -> tuple[tuple[str, ...], str]:
    """Return the models named, and the one to assume where the data has none."""
    found: dict[str, None] = {}
    assumed = ""
    what_if = bool(_WOULD.search(text))
    for match in _MODEL.finditer(text):
        name = _catalogue_name(match[0])
        found[name] = None
        before = _ASSUME_BEFORE.search(text[: match.start()])
        if match[0] == text.strip(" .!?"):
            # Nothing but the name: the answer to the question which model to assume.
            return (name,), name
        explicit = before is not None and before[0].startswith(("assum", "suppos", "presum", "pretend"))
        if before is not None and (explicit or not what_if):
            assumed = assumed or name
    return tuple(found), assumed


def _catalogue_name(said: str) -> str:
    """Return the usual spelling: `GPT 4o mini` → `gpt-4o-mini`, `Claude 3.5 Sonnet` → `claude-3-5-sonnet`."""
    name = said.strip().replace(" ", "-")
    name = re.sub(r"^gpt-?(?=\d)", "gpt-", name)
    name = re.sub(r"^(?=(?:sonnet|opus|haiku)-)", "claude-", name)
    return re.sub(r"(?<=\d)\.(?=\d)", "-", name) if name.startswith("claude") else name


def _group_by(text: str) -> tuple[str, ...]:
    found: list[tuple[int, str]] = []
    for dimension, words in _DIMENSIONS:
        match = re.search(rf"{_BY}(?:{words})\b", text)
        if match and not (match[0][0] in ",a" and not re.search(r"\b(?:by|per|each|every)\b", text[: match.start()])):
            found.append((match.start(), dimension))
    found += [
        (match.start(), _ADVERBS[match[0]]) for match in re.finditer(r"\b(?:" + "|".join(_ADVERBS) + r")\b", text)
    ]
    return tuple(dict.fromkeys(dimension for _, dimension in sorted(found)))


def _features(text: str) -> tuple[str, ...]:
    named = (next(name for name in match.groups() if name) for match in _FEATURE.finditer(text))
    return tuple(dict.fromkeys(name for name in named if name not in _NO_FEATURE))


def _columns(message: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for pattern in _CORRECTIONS:
        for match in pattern.finditer(message):
            role = match["role"].lower()
            found[_ROLE_NAMES.get(role, role)] = match["name"]
    return tuple(found.items())


def _goals(text: str) -> tuple[Goal, ...]:
    """Return at most one goal for each metric: a clause that names a metric and a number, or asks to keep it."""
    goals: dict[str, Goal] = {}
    for clause in _CLAUSE.split(text):
        goal = _goal(clause)
        if goal is not None:
            goals.setdefault(goal.metric, goal)
    return tuple(goals.values())


def _goal(clause: str) -> Goal | None:
    metric = next((name for name, words in _METRICS if re.search(words, clause)), "")
    if not metric:
        return None
    amount = _usd(clause) if metric == "cost" else None
    change = _change(clause, metric)
    if change is None and amount is None:
        return Goal(metric, 0.0) if _KEEP.search(clause) else None
    return Goal(metric, change, amount)


def _change(clause: str, metric: str) -> float | None:
    """Return the change in percent, negative for less."""
    percent = _PERCENT.search(clause)
    if percent:
        amount = float(percent["amount"].replace(",", "."))
        if percent["sign"]:
            return amount if percent["sign"] == "+" else -amount
        return -amount if _LESS.search(clause) else amount if _MORE.search(clause) or metric == "usage" else -amount
    times = _TIMES.search(clause)
    if not times:
        return None
    factor = float(times["amount"]) if times["amount"] else _MULTIPLES[times["word"][:3]]
    if not factor:
        return None
    shrinks = metric == "latency" or (_LESS.search(clause) is not None and factor > 1)
    return (1 / factor - 1) * 100 if shrinks and factor > 1 else (factor - 1) * 100


def _usd(clause: str) -> float | None:
    match = _USD.search(clause)
    if not match:
        return None
    amount, scale = (match["a"], match["ka"]) if match["a"] else (match["b"], match["kb"])
    return float(amount.replace(",", "")) * _SCALES.get(scale or "", 1.0)

"""Finding what a message names."""

import re
from datetime import datetime
from typing import Final

from agent_service.engine.intents import Intent
from agent_service.llm.offline.corpora import find_library
from agent_service.llm.offline.corrections import find_corrections, without_corrections
from agent_service.llm.offline.dates import find_change, find_period
from agent_service.llm.offline.entities import Entities
from agent_service.llm.offline.goals import find_goals, find_limits
from agent_service.llm.offline.words import READ_CHARACTERS, normalise, plain, read_words
from agent_service.llm.offline.workloads import find_workload

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
_FAMILY: Final = re.compile(
    r"\b(?:claude|gemini|chatgpt|gpt|llama|mistral|mixtral|deepseek|qwen)"
    r"(?:[- ](?:flash|pro|mini|nano|haiku|sonnet|opus|large|small|turbo|instant|coder))*\b(?![-.]\w)"
)
"""A model that is named without its version."""
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
NO_FEATURE: Final = frozenset(read_words("no_feature_words.txt"))
"""What stands beside the word feature without being the name of one."""
_FILE: Final = re.compile(
    r"[\w][\w.()+@-]*\.(?:csv|tsv|jsonl|ndjson|json|parquet)(?:\.gz)?\b"
    r"|[\w][\w.()+@-]*\.(?:md|markdown|txt|pdf|html?|rst|docx)\b",
    re.IGNORECASE,
)

_SQL: Final = re.compile(r"\b(?:select|with)\b.+\bfrom\b.+", re.IGNORECASE | re.DOTALL)

MAX_SQL_CHARACTERS: Final = 10_000


def find_entities(message: str, now: datetime, *, after: Intent | None = None, talked_of: str = "") -> Entities:
    """Return what a message names.

    `after` is what the conversation is about, where the message goes on with it: then "50k" may be rows, and "and
    timeouts?" a search. `talked_of` is the metric that a number without one is about.
    """
    sql = _statement(message)
    head = message[:READ_CHARACTERS]
    said = head if sql else without_corrections(head)
    normalised = normalise(said)
    models, assumed = _models(normalised)
    without_models = with_model_word(normalised)
    workload = find_workload(without_models, goes_on=after is Intent.SYNTHETIC)
    library = find_library(said, normalised, goes_on=after is Intent.CORPUS)
    change = find_change(normalised, now)
    return Entities(
        models=models,
        assume_model=assumed,
        group_by=_group_by(normalised),
        features=find_features(said),
        files=tuple(dict.fromkeys(_FILE.findall(head))),
        period=find_period(normalised, now, change=change),
        goals=find_goals(without_models, talked_of=talked_of),
        columns=() if sql else find_corrections(head),
        sql=sql,
        rows=workload.rows,
        days=workload.days,
        seed=workload.seed,
        preset=workload.preset,
        corpus=library.corpus,
        query=library.query,
        change_time=change,
        limits=find_limits(without_models),
    )


def _statement(message: str) -> str:
    """Return the SQL statement in a message, empty where there is none."""
    sql = _SQL.search(message[:MAX_SQL_CHARACTERS])
    if sql is None or not re.search(r"\bselect\b", sql[0], re.IGNORECASE):
        return ""
    return sql[0].strip().strip("`").rstrip("; \n")


def with_model_word(normalised: str) -> str:
    """Return the message with every model's name as MODEL, so that evidence can speak of models."""
    return _FAMILY.sub("MODEL", _MODEL.sub("MODEL", normalised))


def find_families(normalised: str) -> tuple[str, ...]:
    """Return the models that are named without a version: "claude", "gemini flash"."""
    return tuple(dict.fromkeys(match[0] for match in _FAMILY.finditer(_MODEL.sub("MODEL", normalised))))


def without_names(message: str) -> str:
    """Return the part of a message that is read, without the names of files and models in it."""
    return with_model_word(_FILE.sub("FILE", plain(message).lower()))


def with_plain_file_names(normalised: str) -> str:
    """Return the message with every file called `file`, its ending kept: what a name says is no evidence."""
    return _FILE.sub(lambda match: "file" + match[0][match[0].index(".") :], normalised)


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
    name = said.strip(" .:").replace(" ", "-")
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


def find_features(message: str) -> tuple[str, ...]:
    """Return what is called a feature: "the feature chat", "our search endpoint"."""
    named = (next(name for name in match.groups() if name) for match in _FEATURE.finditer(message.lower()))
    return tuple(dict.fromkeys(name for name in named if name not in NO_FEATURE))

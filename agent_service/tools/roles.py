"""The canonical columns of a usage log: what they are called in the wild, and how far a set of them carries."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

SUFFICIENT = 0.8
PARTIAL = 0.4


class Role(StrEnum):
    """The canonical columns."""

    TIMESTAMP = "timestamp"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHED_TOKENS = "cached_tokens"
    MODEL = "model"
    LATENCY = "latency"
    COST = "cost"
    STATUS = "status"
    FEATURE = "feature"
    USER = "user"
    PROMPT = "prompt"


# Names without case and punctuation, the most telling first.
NAMES: Mapping[Role, tuple[str, ...]] = {
    Role.TIMESTAMP: (
        *("timestamp", "datetime", "requesttime", "requesttimestamp", "starttime", "createdat", "eventtime", "time"),
        *("timestamputc", "timestampms", "ts", "created", "loggedat", "requestedat", "startedat", "date", "day"),
    ),
    Role.INPUT_TOKENS: (
        *("inputtokens", "prompttokens", "contexttokens", "inputtokencount", "prompttokencount", "tokensin"),
        *("numinputtokens", "numprompttokens", "ninputtokens", "nprompttokens", "ncontexttokenstotal", "intokens"),
        *("requesttokens", "inputtoken", "prompttoken", "tokensinput", "tokensprompt", "usageinputtokens"),
    ),
    Role.OUTPUT_TOKENS: (
        *("outputtokens", "completiontokens", "generatedtokens", "outputtokencount", "completiontokencount"),
        *("candidatestokencount", "tokensout", "numoutputtokens", "numgeneratedtokens", "noutputtokens", "outtokens"),
        *("ngeneratedtokenstotal", "responsetokens", "outputtoken", "tokensoutput", "tokenscompletion"),
    ),
    Role.CACHED_TOKENS: (
        *("cachedtokens", "cachedinputtokens", "cachereadinputtokens", "cachereadtokens", "cachedprompttokens"),
        *("prompttokenscached", "inputcachedtokens", "cachedcontenttokencount", "ncachedcontexttokenstotal"),
    ),
    Role.MODEL: (
        *("model", "modelname", "modelid", "responsemodel", "requestmodel", "deployment", "deploymentname"),
        *("llm", "llmmodel", "engine", "modelused"),
    ),
    Role.LATENCY: (
        *("latencyms", "latency", "durationms", "duration", "responsetimems", "responsetime", "elapsedms", "elapsed"),
        *("latencys", "latencyseconds", "durations", "durationseconds", "elapsedseconds", "requestduration"),
        *("totallatency", "totallatencyms", "totaltimems", "e2elatency", "tookms", "took", "processingms"),
    ),
    Role.COST: (
        *("costusd", "cost", "totalcost", "totalcostusd", "priceusd", "price", "spend", "spendusd", "amountusd"),
        *("amount", "usd", "charge", "requestcost"),
    ),
    Role.STATUS: (
        *("status", "statuscode", "httpstatus", "responsecode", "outcome", "result", "success", "iserror", "error"),
        *("errorcode", "errortype", "state"),
    ),
    Role.FEATURE: (
        *("feature", "featurename", "usecase", "endpoint", "route", "application", "appname", "app", "product"),
        *("service", "workload", "project", "team", "operation", "task", "tag"),
    ),
    Role.USER: (
        *("user", "userid", "username", "useremail", "enduser", "customer", "customerid", "client", "clientid"),
        *("account", "accountid", "tenant", "tenantid"),
    ),
    Role.PROMPT: (
        *("prompt", "prompttext", "prompthash", "inputhash", "message", "messages", "question", "query", "input"),
        *("request", "requestbody"),
    ),
}

# Words that must all be among a longer name's words: `gen_ai_usage_input_tokens`, `total_prompt_tokens`.
WORDS: Mapping[Role, tuple[frozenset[str], ...]] = {
    Role.CACHED_TOKENS: (frozenset({"cached", "tokens"}), frozenset({"cache", "read", "tokens"})),
    Role.INPUT_TOKENS: (
        frozenset({"input", "tokens"}),
        frozenset({"prompt", "tokens"}),
        frozenset({"context", "tokens"}),
    ),
    Role.OUTPUT_TOKENS: (
        frozenset({"output", "tokens"}),
        frozenset({"completion", "tokens"}),
        frozenset({"generated", "tokens"}),
    ),
    Role.TIMESTAMP: (frozenset({"timestamp"}), frozenset({"start", "time"}), frozenset({"created", "at"})),
    Role.LATENCY: (frozenset({"latency"}), frozenset({"duration"}), frozenset({"response", "time"})),
    Role.COST: (frozenset({"cost"}),),
    Role.MODEL: (frozenset({"model"}),),
    Role.STATUS: (frozenset({"status"}),),
    Role.FEATURE: (frozenset({"feature"}),),
    Role.USER: (frozenset({"user", "id"}), frozenset({"user"})),
    Role.PROMPT: (frozenset({"prompt", "hash"}),),
}

TITLES: Mapping[Role, str] = {
    Role.TIMESTAMP: "the time of the request",
    Role.INPUT_TOKENS: "input tokens",
    Role.OUTPUT_TOKENS: "output tokens",
    Role.CACHED_TOKENS: "cached input tokens",
    Role.MODEL: "the model",
    Role.LATENCY: "latency",
    Role.COST: "cost in US dollars",
    Role.STATUS: "the outcome of the request",
    Role.FEATURE: "the feature that made the request",
    Role.USER: "the user or customer",
    Role.PROMPT: "the prompt or its hash",
}


@dataclass(frozen=True, slots=True)
class Sufficiency:
    """How much of an analysis the columns allow, from 0 to 1."""

    score: float
    present: tuple[Role, ...]
    missing: tuple[Role, ...]

    @property
    def level(self) -> str:
        """Return sufficient, partial or insufficient."""
        return "sufficient" if self.score >= SUFFICIENT else "partial" if self.score >= PARTIAL else "insufficient"


def sufficiency(roles: Sequence[Role]) -> Sufficiency:
    """Return the score: time, tokens and model (or cost) make an analysis; latency, feature and status round it off."""
    weights = {
        Role.TIMESTAMP: 20,
        Role.INPUT_TOKENS: 20,
        Role.OUTPUT_TOKENS: 20,
        Role.MODEL: 20,
        Role.LATENCY: 10,
        Role.FEATURE: 5,
        Role.STATUS: 5,
    }
    counted = set(roles) | ({Role.MODEL} if Role.COST in roles else set())
    score = sum(weight for role, weight in weights.items() if role in counted) / 100
    missing = tuple(role for role in weights if role not in roles and not (role is Role.MODEL and Role.COST in roles))
    return Sufficiency(score, tuple(role for role in Role if role in roles), missing)


def name_score(role: Role, name: str) -> float:
    """Return how much the name alone says, from 0 to 1."""
    for candidate, worth in ((name, 1.0), (name.rsplit(".", 1)[-1], 0.98)):
        plain = re.sub(r"[^a-z0-9]", "", candidate.casefold())
        if plain in NAMES[role]:
            return worth - 0.01 * NAMES[role].index(plain)
    words = frozenset(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).casefold()))
    if any(wanted <= words for wanted in WORDS[role]):
        cached = role is Role.INPUT_TOKENS and words & {"cached", "cache"}
        return 0.0 if cached else 0.7
    return 0.0


@dataclass(frozen=True, slots=True)
class Missing:
    """A column that was wanted and is not usable, in words for people."""

    role: Role
    why_it_matters: str
    how_to_supply: str


_WHY: Mapping[Role, str] = {
    Role.TIMESTAMP: "Without the time of each request there is no time span, no peak, no trend and no price by date.",
    Role.INPUT_TOKENS: "Without input tokens neither the volume nor the cost of the requests can be computed.",
    Role.OUTPUT_TOKENS: "Without output tokens neither the volume nor the cost of the answers can be computed.",
    Role.CACHED_TOKENS: "Without cached tokens all input is priced in full, so the cost may be overstated.",
    Role.MODEL: "Without the model of each request it cannot be priced or compared with others.",
    Role.LATENCY: "Without latency nothing can be said about speed.",
    Role.COST: "Without a recorded cost it can only be computed from the model and the tokens.",
    Role.STATUS: "Without a status failed requests cannot be told from good ones.",
    Role.FEATURE: "Without a feature cost and usage cannot be told apart by what caused them.",
    Role.USER: "Without a user cost and usage cannot be told apart by who caused them.",
    Role.PROMPT: "Without the prompt or its hash repeated requests cannot be found.",
}
_HOW: Mapping[Role, str] = {
    Role.TIMESTAMP: "Add a column such as timestamp (ISO 8601 or epoch).",
    Role.INPUT_TOKENS: "Add a column such as input_tokens, or say which column holds it.",
    Role.OUTPUT_TOKENS: "Add a column such as output_tokens, or say which column holds it.",
    Role.CACHED_TOKENS: "Add a column such as cached_tokens.",
    Role.MODEL: "Add a column such as model, or say which model to assume, for example: assume gpt-4o.",
    Role.LATENCY: "Add a column such as latency_ms.",
    Role.COST: "Add a column such as cost_usd, or a model column, or say which model to assume.",
    Role.STATUS: "Add a column such as status (ok, error, or the HTTP code).",
    Role.FEATURE: "Add a column such as feature (or endpoint, use case, team).",
    Role.USER: "Add a column such as user_id.",
    Role.PROMPT: "Add a column such as prompt_hash.",
}


def missing(role: Role, found: str = "") -> Missing:
    """Return what to tell about a missing column. `found`: what is wrong with the column that is there."""
    return Missing(role, f"{_WHY[role]} {found}".strip(), _HOW[role])

"""Parts of the data that a message means and only the data can tell: a feature's bare name, "claude", "first week".

The first look measures everything; what it found tells which words of the message are names in it. Then the same is
measured once more, of that part only. What was meant and is not there is said.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm.offline import sections
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, child, children, text
from agent_service.llm.offline.dates import ALWAYS, Period, unread_time, within_data
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.named import NO_FEATURE, find_families, find_features, without_names
from agent_service.llm.offline.understanding import MAX_EARLIER, Understanding, understand
from agent_service.llm.offline.words import normalise, read_words

_NARROWED: Final = frozenset({Intent.COST_ANALYSIS, Intent.BENCHMARKING, Intent.TECHNICAL})
"""What is asked of a part. Advice, prices and reports are about the whole that their other figures rest on."""

_NO_NAME: Final = NO_FEATURE | frozenset(read_words("measure_words.txt"))
"""Words that a request is made of: a feature of that name is only meant where it is called a feature."""

_LIMITED: Final = frozenset(
    {"usage_summary", "cost_breakdown", "latency_analysis", "usage_pattern", "anomaly_scan", "correlate"}
    | {"duplicate_prompts"}
)
"""Tools that measure a part of the data."""

MIN_NAME: Final = 3
"""Letters from which on a feature's bare name is recognised in a message."""


SHARE: Final = re.compile(r"\b(?:shares?|percentage|proportion|fraction|part|portion) of\b", re.IGNORECASE)
"""How a request asks for a model's part of the whole: that rests on all models."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of the data is meant. `absent` are models that are named and not in it, `unread` a time not understood."""

    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    period: Period = ALWAYS
    absent: tuple[str, ...] = ()
    unread: str = ""

    def arguments(self) -> dict[str, JsonValue]:
        """Return the arguments of a data tool that limit it to this part."""
        limits: dict[str, JsonValue] = {}
        if self.features:
            limits["features"] = list(self.features)
        if self.models:
            limits["models"] = list(self.models)
        if self.period.start and self.period.end:
            limits |= {"start_time": self.period.start.isoformat(), "end_time": self.period.end.isoformat()}
        return limits


def closer_look(understanding: Understanding, conversation: Conversation) -> list[Call]:
    """Return the calls that measure the part that is meant, once; none where that has been measured."""
    usage = _first_look(conversation.exchanges)
    if usage is None:
        return []
    part = part_of(understanding, conversation)
    if not part.arguments() and not part.absent:
        return []
    limits, calls = part.arguments(), []
    for exchange in conversation.exchanges:
        # Of models that are not there nothing can be measured, so all are.
        kept = {name: value for name, value in exchange.args.items() if name != "models" or part.models}
        call = Call(exchange.tool_name, {**kept, **limits})
        if exchange.tool_name in _LIMITED and not _was_made(call, conversation.exchanges):
            calls.append(call)
    return calls


def part_of(understanding: Understanding, conversation: Conversation) -> Part:
    """Return which part of the data is meant, beyond what the first look was already limited to."""
    if SHARE.search(conversation.request):
        return Part()  # of the whole, which must be there
    usage = _first_look(conversation.exchanges)
    if usage is None or understanding.intent not in _NARROWED or understanding.entities.sql:
        return Part()
    messages = list(_messages(conversation))
    entities = understanding.entities
    features = next((found for message in messages if (found := _features(message, usage.result))), ())
    features = tuple(name for name in features if name.lower() not in {said.lower() for said in entities.features})
    models, absent = _models(understanding, messages, usage.result)
    period, unread = ALWAYS, ""
    if entities.period == ALWAYS:
        first, last = (_moment(usage.result, bound) for bound in ("start", "end"))
        if first is not None and last is not None:
            spans = (within_data(normalise(message), first, last) for message in messages)
            period = next((span for span in spans if span != ALWAYS), ALWAYS)
        unread = unread_time(normalise(messages[0])) if period == ALWAYS else ""
    return Part((*entities.features, *features) if features else (), models, period, absent, unread)


def before(understanding: Understanding, conversation: Conversation) -> list[str]:
    """Say first what was named and is not in the data, and which time was not understood."""
    part, usage, lines = part_of(understanding, conversation), _first_look(conversation.exchanges), []
    where = sections.dataset_name(usage.result if usage else None)
    if part.absent:
        named = " or ".join(f"“{name}”" for name in part.absent)
        known = [text(group, "name") for group in children(usage.result if usage else None, "groups", "model")]
        if child(usage.result if usage else None, "other", "model") is not None:
            lines += [f"**There is no model {named} among the {len(known)} most used ones of {where}.**", ""]
        else:
            lines += [f"**There is no model {named} in {where}: it has {', '.join(known)}.**", ""]
    if part.unread:
        lines += [f"**I did not understand the time “{part.unread}”: this is all of {where}.**", ""]
    return lines


def after(understanding: Understanding, conversation: Conversation) -> list[str]:
    """Say after the headline which part it is about, and what the whole is."""
    part, usage = part_of(understanding, conversation), _first_look(conversation.exchanges)
    if usage is None or not part.arguments():
        return []
    where = sections.dataset_name(usage.result)
    looks = [exchange for exchange in conversation.exchanges if exchange.tool_name == "usage_summary"]
    if looks[-1].status != SUCCESS:
        return [f"**That part could not be measured, so this is all of {where}.**", ""]
    meant = [f"the feature {name}" for name in part.features] + [f"the model {name}" for name in part.models]
    if part.period.start and part.period.end:
        meant.append(f"{part.period.start:%Y-%m-%d %H:%M} to {part.period.end:%Y-%m-%d %H:%M} UTC")
    whole = sections.headline(usage.result).replace("**", "")
    return [f"*This is only {', '.join(meant)}. All together: {whole}*", ""]


def _first_look(exchanges: Sequence[Exchange]) -> Exchange | None:
    """Return the summary that tells what there is; none where the filter of the first one left nothing."""
    looks = [exchange for exchange in exchanges if exchange.tool_name == "usage_summary"]
    good = [exchange for exchange in looks if exchange.status == SUCCESS and exchange.result is not None]
    return good[0] if good and (good[0] is looks[0] or looks[0].args.get("columns")) else None


def _was_made(call: Call, exchanges: Sequence[Exchange]) -> bool:
    return any(exchange.tool_name == call.tool_name and exchange.args == call.args for exchange in exchanges)


def _messages(conversation: Conversation) -> Iterator[str]:
    """Yield the message, and those before it that it goes on with, the latest first."""
    message, earlier = conversation.request, list(conversation.earlier[-MAX_EARLIER:])
    yield message
    while earlier and understand(message, earlier, conversation.now).follows:
        message = earlier.pop()
        yield message


def _features(message: str, usage: JsonObject | None) -> tuple[str, ...]:
    """Return the features of the data whose names stand in a message, as the data writes them."""
    said = re.sub(r"[\s_-]+", " ", without_names(message).lower())
    called = find_features(message)
    found = []
    for group in children(usage, "groups", "feature"):
        name = text(group, "name")
        words = re.sub(r"[\s_-]+", " ", name.lower()).strip()
        bare = len(words) >= MIN_NAME and words not in _NO_NAME
        if name.lower() in called or (bare and re.search(rf"(?<![\w.]){re.escape(words)}(?!\w|\.\w)", said)):
            found.append(name)
    return tuple(found)


def _models(
    understanding: Understanding, messages: Sequence[str], usage: JsonObject | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the models of the data that are named, by version or by family, and the names that are not in it."""
    entities = understanding.entities
    known = [text(group, "name") for group in children(usage, "groups", "model")]
    if entities.assume_model or not known:
        return (), ()
    families = next((named for message in messages if (named := find_families(normalise(message)))), ())
    found: dict[str, None] = {}
    absent = []
    for said, matches in (*((name, _is_version) for name in entities.models), *((name, _is_of) for name in families)):
        here = [name for name in known if name.lower() == said] or [name for name in known if matches(name, said)]
        found |= dict.fromkeys(here)
        if not here:
            absent.append(said)
    if set(found) == set(known) and set(entities.models) <= set(known) and not child(usage, "other", "model"):
        # All there are: that is no part.
        return (), tuple(absent)
    return tuple(found), tuple(absent)


def _is_version(name: str, said: str) -> bool:
    """True for a dated name of the model that is said: `gpt-4o-2024-08-06`, `openai/gpt-4o`."""
    return bool(re.fullmatch(rf"{re.escape(said)}(?:[-@]\d{{4}}[-\d]*|-latest)?", _plain(name)))


def _is_of(name: str, said: str) -> bool:
    """True for a model of the family that is said: `claude-3-haiku` of `claude` and of `claude haiku`."""
    first, *more = re.split(r"[- ]", said)
    rest = re.split(r"[-. :]", _plain(name))
    return rest[0].startswith(first) and all(word in rest for word in more)


def _plain(name: str) -> str:
    """Return a model's name without its provider: `anthropic/claude-3-haiku`, `anthropic.claude-3-haiku`."""
    return re.sub(r"^(?:[a-z]+[/.:])+(?=[a-z])", "", name.lower())


def _moment(usage: JsonObject | None, bound: str) -> datetime | None:
    said = text(usage, "time", bound)
    return datetime.fromisoformat(said) if said else None

"""The offline model as the actions agent: the best options become a plan and a policy, which is applied when asked."""

import re
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.intents import Intent
from agent_service.llm.offline import plan_words
from agent_service.llm.offline.chosen import OPTIMIZATIONS, Option, chosen, combination
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Saying, Thought, Words, number, text
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.understanding import Facet, Understanding, understand

MAX_SENTENCE_CHARACTERS: Final = 480
"""Of what one step says: the tool takes no more than 500."""

_GOING_ON: Final = frozenset({Facet.POLICY, Facet.APPLY, Facet.PDF, Facet.CHARTS})

_STEP: Final = re.compile(r"\b(?:step|action|task|item)s?\s*#?\s*(\d{1,2})\b|\b[sa](\d{1,2})\b", re.IGNORECASE)
_STATUSES: Final = (
    ("blocked", re.compile(r"\b(?:block\w*|stuck|waiting|on hold)\b", re.IGNORECASE)),
    ("done", re.compile(r"\b(?:done|finish\w*|complet\w*|closed?|tick\w*)\b", re.IGNORECASE)),
    ("doing", re.compile(r"\b(?:doing|in progress|start\w*|working on|begun|began)\b", re.IGNORECASE)),
    ("todo", re.compile(r"\b(?:todo|to do|open|reopen|pending|not started)\b", re.IGNORECASE)),
)


def can_play(conversation: Conversation) -> bool:
    """True when the tools on offer are those of the actions agent."""
    return bool(conversation.tools & {"create_action_plan", "track_action"})


def reply(conversation: Conversation) -> list[Saying]:
    """Return the next turn: a plan and a policy, then their application, then words."""
    understanding = understand(conversation.request, conversation.earlier, conversation.now)
    if Facet.TRACK in understanding.facets and "track_action" in conversation.tools:
        if not conversation.exchanges:
            return [Thought("I look at the saved plan."), Call("track_action", _tracking(conversation.request))]
        return [Words(plan_words.tracked(conversation))]
    picked = chosen(conversation.evidence.get(OPTIMIZATIONS, ()))
    tried = {exchange.tool_name for exchange in conversation.exchanges}
    if not tried and picked and _builds_on(understanding, conversation):
        return [Thought("There may be a plan in this conversation already."), Call("track_action", {})]
    if not tried - {"track_action"} and picked:
        calls = [call for call in _calls(understanding, conversation, picked) if call.tool_name in conversation.tools]
        if calls:
            return [Thought("I put the options that pay into an order that a team can follow."), *calls]
    application = _application(understanding, conversation)
    if application is not None:
        return [Thought("The policy is exported. Applying it needs a person's approval."), application]
    return [Words(plan_words.planned(conversation, picked))]


def _calls(understanding: Understanding, conversation: Conversation, picked: list[Option]) -> list[Call]:
    made = plan_words.plan_of(conversation) is not None
    calls = [] if made else [Call("create_action_plan", {"title": _title(conversation), "steps": _steps(picked)})]
    together, _ = combination(conversation.evidence.get(OPTIMIZATIONS, ()))
    exported = [together] if together is not None and together.has_rules else [one for one in picked if one.has_rules]
    if exported:
        calls.append(Call("export_policy", {"options": [option.citation for option in exported]}))
    elif understanding.facets & {Facet.POLICY, Facet.APPLY}:
        calls.append(Call("export_policy", {"options": [option.citation for option in picked]}))
    return calls


def _builds_on(understanding: Understanding, conversation: Conversation) -> bool:
    """True for a message that goes on with a plan of before, "as PDF", "apply it", rather than asking for a new one."""
    goes_on = understanding.intent is Intent.REPORTING or bool(understanding.facets & _GOING_ON)
    asks_anew = re.search(r"\bplan\b", conversation.request, re.IGNORECASE) is not None
    return understanding.follows and goes_on and not asks_anew and "track_action" in conversation.tools


def _title(conversation: Conversation) -> str:
    words = " ".join(conversation.request.split())
    return words if 0 < len(words) <= plan_words.MAX_TITLE_CHARACTERS else "A plan for the goals of this request"


def _steps(picked: list[Option]) -> list[JsonValue]:
    """Return pilot, validation and roll-out of each option, one roll-out after the other, and what comes at the end."""
    steps: list[dict[str, JsonValue]] = []
    rolled_out: list[JsonValue] = []

    def add(what: str, owner: str, effort: str, validation: str, rollback: str, after: list[JsonValue]) -> JsonValue:
        step_id = f"s{len(steps) + 1}"
        steps.append(
            {
                "id": step_id,
                "what": _cut(what),
                "owner_role": owner,
                "effort": effort,
                "validation": _cut(validation),
                "rollback": _cut(rollback),
                "depends_on": after,
            }
        )
        return step_id

    for option in picked:
        rollback = text(option.data, "rollback") or "Switch the change off; requests go as before."
        size = text(option.data, "effort", "size")
        effort = size if size in {"S", "M", "L"} else "M"
        question = text(option.data, "question")
        before: list[JsonValue] = []
        if question:
            before = [add(f"Decide: {question}", "Product owner", "S", "The decision is written down.", "None.", [])]
        before = [
            add(
                f"Pilot on a small sample of the traffic{_affected(option)}: {option.title}",
                "Platform engineer",
                effort,
                "The sample's requests are served as the option says, without more errors than the rest.",
                rollback,
                before,
            )
        ]
        how = text(option.data, "validation", "how")
        if how:
            before = [
                add(
                    f"Validate the quality of the sample: {option.title}",
                    "Product owner",
                    "M",
                    how,
                    "End the pilot where the quality does not hold.",
                    before,
                )
            ]
        done = add(
            f"Roll out: {option.title}",
            "Platform engineer",
            effort,
            "A new log shows a lower cost per request, and neither more errors nor a higher p95 latency.",
            rollback,
            [*before, *rolled_out[-1:]],
        )
        steps[-1]["option"] = option.citation
        rolled_out.append(done)
    add(
        "Monitor: measure cost, latency and errors again with a new log, and compare with this plan's computed savings",
        "FinOps analyst",
        "S",
        "The measured saving is compared with the computed one, and the difference explained.",
        "Take back the roll-outs that do not pay, the last one first.",
        rolled_out,
    )
    return list[JsonValue](steps)


def _affected(option: Option) -> str:
    requests = number(option.data, "affected", "requests")
    return f" ({requests:,.0f} requests of the log are affected)" if requests else ""


def _cut(words: str) -> str:
    return words if len(words) <= MAX_SENTENCE_CHARACTERS else f"{words[: MAX_SENTENCE_CHARACTERS - 1]}…"


def _application(understanding: Understanding, conversation: Conversation) -> Call | None:
    """Return the call that applies what was exported, once, where that was asked for."""
    tried = {exchange.tool_name for exchange in conversation.exchanges}
    asked = Facet.APPLY in understanding.facets and "apply_policy" in conversation.tools
    exported = exported_policy(conversation)
    if not asked or exported is None or "apply_policy" in tried:
        return None
    return Call("apply_policy", {"policy": text(exported.result, "artifact_id")})


def exported_policy(conversation: Conversation) -> Exchange | None:
    """Return the export of this step that went well."""
    found = [one for one in conversation.exchanges if one.tool_name == "export_policy" and one.status == SUCCESS]
    return found[-1] if found else None


def _tracking(request: str) -> JsonObject:
    """Return which step gets which status, as far as the message says."""
    step = _STEP.search(request)
    status = next((name for name, words in _STATUSES if words.search(request)), "")
    if step is None or not status:
        return {}
    return {"step_id": f"s{step[1] or step[2]}", "status": status}

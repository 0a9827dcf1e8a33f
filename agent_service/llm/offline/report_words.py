"""The answer of a run with several steps, at three levels: full, partial with what is missing, and guidance."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from agent_service.engine.intents import TRIAGE, Intent
from agent_service.llm.offline import endings, sections
from agent_service.llm.offline.bodies import body
from agent_service.llm.offline.chosen import MAX_LISTED, OPTIMIZATIONS, Option, combination, options
from agent_service.llm.offline.conversation import Conversation, Exchange, child, names, number, text
from agent_service.llm.offline.facts import SUCCESS, Facts
from agent_service.llm.offline.format import counted, money, table
from agent_service.llm.offline.plan_words import (
    failures,
    files_of,
    first_step,
    goals_table,
    plan_table,
    reservation,
    without_files,
)
from agent_service.llm.offline.understanding import Understanding

DATA: Final = "data"
ACTIONS: Final = "actions"

_BESIDE_OPTIONS: Final = frozenset({"forecast_capacity", "evaluate_change", "compare_models", "price_lookup"})
"""Tools of the optimizations agent whose results are no options."""

_BRING: Final = (
    "a usage log: CSV, JSONL, JSON or Parquet, gzipped or not, one row per request",
    "in it the time, the model, and the input and output tokens: then cost is computed from the price catalogue",
    "if there is one, the recorded cost, the latency, a status, and the feature or user that a request belongs to",
)


def answer(understanding: Understanding, conversation: Conversation) -> str:
    """Return the answer. There always is one, also where every step before has failed."""
    facts = Facts(conversation.evidence.get(DATA, ()))
    others = _others(conversation, facts)
    if facts.dataset is None and not others and _best(conversation) is None:
        lines = _guidance(conversation)
    elif whole := _whole(conversation):
        lines = [whole, "", *others, *files_of(conversation.exchanges), *failures(conversation.exchanges)]
        lines += _failed(conversation)
    else:
        lines = [*_findings(understanding, conversation, facts), *others]
        lines += files_of([*_actions(conversation), *conversation.exchanges])
        lines += failures(conversation.exchanges)
        lines += _failed(conversation)
        lines += _missing(conversation, facts)
        lines += endings.not_available(conversation)
        lines += _next_questions(understanding, conversation, facts)
        lines += endings.source(facts)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip()) + "\n"


def executive_summary(conversation: Conversation, *, plan: bool = True) -> list[str]:
    """Return what is spent, what can be saved, and with `plan` what is to be done, a sentence each."""
    usage = Facts(conversation.evidence.get(DATA, ())).of("usage_summary")
    sentences = []
    requests, cost = number(usage, "totals", "requests"), number(usage, "totals", "cost_usd")
    if requests:
        spent = f" cost {money(cost)}" if cost is not None else " were measured; what they cost is not known"
        sentences.append(f"{counted(requests, 'request')}{spent}.")
    best = _best(conversation)
    if best is not None:
        percent = number(best.data, "saving_percent")
        share = f" ({percent:.1f} % of the cost)" if percent is not None else ""
        monthly = number(best.data, "saving_usd_per_month")
        month = f", {money(monthly)} in a month" if monthly is not None else ""
        which = "The best combination of options" if combination(_optimizations(conversation))[0] else "The best option"
        sentences.append(f"{which} would save {money(best.saving_usd)}{share}{month}.")
    steps = _plan(conversation)
    if plan and steps is not None:
        sentences.append(f"The plan has {counted(len(sections_of(steps)), 'step')}.")
    return sentences


def sections_of(plan: Exchange) -> Sequence[object]:
    """Return the steps of a plan."""
    found = child(plan.result, "steps")
    return found if isinstance(found, list | tuple) else ()


# --- Full and partial ------------------------------------------------------------------------------------------------


def _findings(understanding: Understanding, conversation: Conversation, facts: Facts) -> list[str]:
    evidence = _optimizations(conversation)
    if _best(conversation) is None or is_only_tracked(conversation):
        plan = _plan_part(conversation) if _plan(conversation) is not None else []
        return plan or [*_measured(understanding, facts), *_unsaved(conversation, facts)]
    lines = [_headline(conversation, facts), "", *sections.note(facts.dataset)]
    summary = executive_summary(conversation)
    lines += ["### Executive summary", "", *(f"- {sentence}" for sentence in summary), ""]
    together, _ = combination(evidence)
    goals = goals_table(together)
    lines += ["### Your goals", "", *goals] if goals else []
    lines += _options(evidence, together)
    plan = _plan_part(conversation)
    lines += [*_also(evidence), *(["### Plan", "", *plan] if plan else [])]
    usage = facts.of("usage_summary")
    return [*lines, *(sections.totals_in_brief(usage) if usage is not None else [])]


def _whole(conversation: Conversation) -> str:
    """Return the optimizations agent's own answer where it is one: a forecast or a comparison, and no options."""
    alone = _best(conversation) is None and bool(_also(_optimizations(conversation)))
    return _said(conversation, OPTIMIZATIONS) if alone else ""


def _unsaved(conversation: Conversation, facts: Facts) -> list[str]:
    """Say why no saving could be computed, call by call."""
    said = [f"- {one.summary}" for one in _optimizations(conversation)]
    return ["### No saving could be computed", "", *said, ""] if said and facts.dataset is not None else []


def _measured(understanding: Understanding, facts: Facts) -> list[str]:
    """Return the measured facts, where no options were computed."""
    if facts.dataset is None:
        return []
    first, *rest = body(understanding, facts) or [""]
    if understanding.intent is Intent.REPORTING and facts.of("usage_summary") is None:
        return [f"**{sections.capital(sections.dataset_name(facts.dataset))} was looked at.**", ""]
    return [first, "", *sections.note(facts.dataset), *rest]


def _headline(conversation: Conversation, facts: Facts) -> str:
    best = _best(conversation)
    where = sections.dataset_name(facts.dataset)
    if best is None or best.saving_usd <= 0:
        return f"**None of the options that were computed would save anything in {where}.**"
    percent = number(best.data, "saving_percent")
    share = f", {percent:.1f} % of the measured cost" if percent is not None else ""
    together, meets = combination(_optimizations(conversation))
    judged = ""
    if together is not None and goals_table(together):
        met = f"; that meets every goal{reservation(together.data)}"
        judged = met if meets else "; not every goal can be met, and this comes nearest"
    return f"**In {where}, {best.name} would save {money(best.saving_usd)}{share}{judged}.**"


def _options(evidence: Sequence[Exchange], together: Option | None) -> list[str]:
    several = together is not None and len(together.part_ids) > 1
    listed = [*([together] if together is not None and several else []), *options(evidence)][:MAX_LISTED]
    joined = set(together.part_ids) if together is not None else set()
    rows = [
        [
            option.name.capitalize() if option is together else option.title,
            "yes" if option.id in joined else "",
            money(option.saving_usd),
            f"{percent:.1f} %" if (percent := number(option.data, "saving_percent")) is not None else "",
            text(option.data, "quality_risk", "level"),
            text(option.data, "effort", "size"),
            text(option.data, "rollback"),
        ]
        for option in listed
    ]
    header = ["Option", "Chosen", "Computed saving", "Share", "Quality risk", "Effort", "Rollback"]
    if not rows:
        return []
    risks = dict.fromkeys(
        f"- {option.title}: {reason}"
        for option in listed
        if option.id in joined or not joined
        if (reason := text(option.data, "quality_risk", "reason"))
    )
    note = "Each option is computed alone over the same requests: their savings do not add up."
    return ["### Options", "", *table(header, rows, texts=2), "", note, "", "Risks to quality:", "", *risks, ""]


def _also(evidence: Sequence[Exchange]) -> list[str]:
    """Say what was computed beside options: a forecast, a comparison, a before and after."""
    said = [f"- {one.summary}" for one in evidence if one.tool_name in _BESIDE_OPTIONS and one.status == SUCCESS]
    return ["### Also computed", "", *said, ""] if said else []


def _plan_part(conversation: Conversation) -> list[str]:
    """Return what the actions agent says, for it also says what was applied and what failed; else the plan itself."""
    said, plan = _said(conversation, ACTIONS), _plan(conversation)
    if said:
        return [without_files(said), ""]
    return [*plan_table(plan.result), *first_step(plan.result)] if plan is not None else []


def is_only_tracked(conversation: Conversation) -> bool:
    """True where a step of a saved plan was changed: that is the answer, whatever else was computed on the way."""
    return any(text(one.result, "changed") for one in _actions(conversation) if one.tool_name == "track_action")


# --- What others found, what failed, what is missing -----------------------------------------------------------------


def _others(conversation: Conversation, facts: Facts) -> list[str]:
    """Return, in their own words, what agents found that is not told from their evidence."""
    told = {
        *((DATA,) if facts.dataset is not None else ()),
        *((OPTIMIZATIONS,) if _best(conversation) is not None or _optimizations(conversation) else ()),
        *((ACTIONS,) if _best(conversation) is not None or _plan(conversation) is not None else ()),
    }
    return [
        line
        for agent in conversation.findings
        if agent not in told and _said(conversation, agent)
        for line in (_said(conversation, agent), "")
    ]


def _said(conversation: Conversation, agent: str) -> str:
    """Return what an agent wrote, empty where it wrote nothing."""
    return text(conversation.findings.get(agent), "text").strip()


def _failed(conversation: Conversation) -> list[str]:
    """Say which steps failed, and what the answer goes without."""
    failed = {agent: words for agent, finding in conversation.findings.items() if (words := text(finding, "failed"))}
    if not failed:
        return []
    lines = [f"- {agent.replace('_', ' ').capitalize()}: {words}" for agent, words in failed.items()]
    return ["### What could not be done", "", *lines, ""]


def _missing(conversation: Conversation, facts: Facts) -> list[str]:
    """Say which columns are missing, and what the options would need to be computed better."""
    entries = dict.fromkeys(
        f"- {said}"
        for option in options(_optimizations(conversation))
        for said in _texts(child(option.data, "missing"))
    )
    columns = endings.missing(facts) or ["### What is missing", "", ""]
    return [*columns[:-1], *entries, ""] if entries else endings.missing(facts)


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _next_questions(understanding: Understanding, conversation: Conversation, facts: Facts) -> list[str]:
    """Suggest what goes on from here: with the plan where there is one, with the data where there is any."""
    plan = _plan(conversation)
    if plan is None:
        return endings.next_questions(understanding, facts) if facts.dataset is not None else []
    reported = any(one.tool_name == "create_report" and one.status == SUCCESS for one in conversation.exchanges)
    exported = any(one.tool_name == "export_policy" for one in _actions(conversation))
    ideas = [
        "“Step 1 is done”: the plan keeps track",
        *([] if reported else ["“Put this in a report with charts, as PDF”"]),
        *(["“Apply the policy”: a person approves it first"] if exported else []),
    ]
    return ["### What you could ask next", "", *(f"- {idea}" for idea in ideas), ""]


# --- Guidance --------------------------------------------------------------------------------------------------------


def _guidance(conversation: Conversation) -> list[str]:
    """Say what to bring: nothing was measured, and nothing is made up."""
    failed = _failed(conversation)
    lacks = names(conversation.findings.get(TRIAGE), "missing")
    opening = "nothing could be measured" if failed else "there is nothing measured yet"
    return [
        f"**I cannot answer this with numbers: {opening}, and I do not make any up.**",
        "",
        *failed,
        *failures(conversation.exchanges),
        *([f"The data that there is lacks: {', '.join(lacks)}.", ""] if lacks else []),
        "### What to bring",
        "",
        *(f"- {item}" for item in _BRING),
        "",
        "Then I can say what you spend and why, which options would save how much, and in which order to go.",
        "",
        *endings.not_available(conversation),
        "### What you could ask next",
        "",
        "- “Which datasets do I have?”",
        "- “Analyze my AI costs”, with the built-in sample or with a log of yours",
        "- “Cut spend 20 %, keep quality: what do I do?”",
    ]


def _optimizations(conversation: Conversation) -> Sequence[Exchange]:
    return conversation.evidence.get(OPTIMIZATIONS, ())


def _actions(conversation: Conversation) -> Sequence[Exchange]:
    return conversation.evidence.get(ACTIONS, ())


def _best(conversation: Conversation) -> Option | None:
    together, _ = combination(_optimizations(conversation))
    every = options(_optimizations(conversation))
    return together or (every[0] if every else None)


def _plan(conversation: Conversation) -> Exchange | None:
    plans = [one for one in _actions(conversation) if _is_plan(one)]
    return plans[-1] if plans else None


def _is_plan(exchange: Exchange) -> bool:
    made = exchange.tool_name in {"create_action_plan", "track_action"} and exchange.status == SUCCESS
    return made and isinstance(exchange.result, Mapping)

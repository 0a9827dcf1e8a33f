"""What the actions agent says: the plan as a table, what was exported and applied, and how far a plan is."""

from collections.abc import Sequence
from typing import Final

from agent_service.engine.events import JsonObject
from agent_service.llm.offline.chosen import OPTIMIZATIONS, Option, combination
from agent_service.llm.offline.conversation import Conversation, Exchange, child, children, names, number, text
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.format import count, counted, money, table

SIMULATIONS: Final = frozenset(
    {"simulate_routing", "simulate_caching", "simulate_batching", "simulate_prompt_trim", "combine_options"}
)
"""The tools that compute options. A forecast or a look at a change leaves none behind, and none was asked for."""

MAX_TITLE_CHARACTERS: Final = 200
"""Of a plan's title."""

FILES: Final = "### Files"
"""The heading of the files that an answer names."""


def planned(conversation: Conversation, picked: Sequence[Option]) -> str:
    """Return the answer after planning."""
    plan = plan_of(conversation)
    if plan is None:
        return _no_plan(conversation, picked)
    steps = children(plan.result, "steps")
    lines = [f"**The plan has {counted(len(steps), 'step')}{_saving(conversation, picked)}.**", ""]
    lines += [*plan_table(plan.result), *first_step(plan.result)]
    lines += files_of(conversation.exchanges)
    lines += _applied(conversation)
    lines += failures([one for one in conversation.exchanges if one.tool_name != "track_action"])
    return "\n".join(lines).strip() + "\n"


def plan_of(conversation: Conversation) -> Exchange | None:
    """Return the plan of this step: the one that it made, or the one that the conversation has already."""
    tracked = _last(conversation, "track_action")
    here = tracked if tracked is not None and child(tracked.result, "this_conversation") is True else None
    return _last(conversation, "create_action_plan") or here


def tracked(conversation: Conversation) -> str:
    """Return how far the plan is."""
    found = _last(conversation, "track_action")
    if found is None:
        lines = ["**The plan's state could not be shown or changed.**", "", *failures(conversation.exchanges)]
        return "\n".join(lines).strip() + "\n"
    lines = [f"**{found.summary}.**", "", *plan_table(found.result), *first_step(found.result)]
    warnings = names(found.result, "warnings")
    lines += [f"- Note: {warning}." for warning in warnings]
    lines += ["", "To change a step, write for example “step 2 is done”."]
    return "\n".join(lines).strip() + "\n"


def plan_table(plan: JsonObject | None) -> list[str]:
    """Return a plan's steps as a Markdown table, with what each one is after and its computed saving."""
    steps = children(plan, "steps")
    rows = [
        [
            text(step, "id"),
            text(step, "what"),
            text(step, "owner_role"),
            text(step, "effort"),
            ", ".join(names(step, "depends_on")) or "-",
            text(step, "status"),
            money(saving) if (saving := number(step, "saving_usd")) is not None else "",
        ]
        for step in steps
    ]
    header = ["Step", "What", "Owner", "Effort", "After", "Status", "Computed saving"]
    return [*table(header, rows, texts=6), ""] if rows else []


def first_step(plan: JsonObject | None) -> list[str]:
    """Say what comes next, how it is checked, and how it is taken back."""
    ready = names(plan, "next_steps")
    step = next((one for one in children(plan, "steps") if ready and text(one, "id") == ready[0]), None)
    if step is None:
        return []
    checked = f"It worked when: {text(step, 'validation')} Rollback: {text(step, 'rollback')}"
    return [f"Next is {text(step, 'id')}, by the {text(step, 'owner_role').lower()}. {checked}", ""]


def files_of(exchanges: Sequence[Exchange]) -> list[str]:
    """Name the files that calls have made."""
    made: dict[str, str] = {}
    for exchange in exchanges:
        for file in [exchange.result, *children(exchange.result, "files")]:
            if exchange.status == SUCCESS and text(file, "artifact_id") and text(file, "name"):
                made.setdefault(text(file, "name"), text(exchange.result, "title"))
    if not made:
        return []
    return [FILES, "", *(f"- `{name}`{f': {title}' if title else ''}" for name, title in made.items()), ""]


def without_files(said: str) -> str:
    """Return an answer without its part on files: who passes it on names them with his own."""
    before, heading, after = said.partition(f"\n{FILES}\n")
    following = after.find("\n### ") if heading else -1
    return before.rstrip() + (f"\n{after[following:]}" if following >= 0 else "")


def failures(exchanges: Sequence[Exchange]) -> list[str]:
    """Say which calls failed, each cause once."""
    causes = dict.fromkeys(one.error or one.summary for one in exchanges if one.status != SUCCESS)
    return ["### What did not work", "", *(f"- {cause}" for cause in causes), ""] if causes else []


def _applied(conversation: Conversation) -> list[str]:
    applied = _last(conversation, "apply_policy")
    return ["### Applied", "", f"{applied.summary}.", ""] if applied is not None else []


def _saving(conversation: Conversation, picked: Sequence[Option]) -> str:
    together, meets = combination(conversation.evidence.get(OPTIMIZATIONS, ()))
    best = together or (picked[0] if picked else None)
    percent = number(best.data, "saving_percent") if best is not None else None
    if best is None or percent is None:
        return ""
    goals = "" if together is None or not children(together.data, "constraints") else _goals(together, met=meets)
    return f": {best.name} would save {money(best.saving_usd)} ({percent:.1f} %) of the measured cost{goals}"


def _goals(together: Option, *, met: bool) -> str:
    return f", and every goal is met{untold_goals(together)}" if met else ", but not every goal is met"


def untold_goals(together: Option) -> str:
    """Return the words that take out of "every goal" those of a combination that nobody can judge by the data."""
    goals = children(together.data, "constraints")
    untold = [f"“{text(goal, 'goal')}”" for goal in goals if child(goal, "met") is None]
    return f" but {' and '.join(untold)}, which the data cannot tell" if untold else ""


def _no_plan(conversation: Conversation, picked: Sequence[Option]) -> str:
    failed = text(conversation.findings.get(OPTIMIZATIONS), "failed")
    lines = ["**There is no plan: a plan needs options whose saving was computed.**", ""]
    if failed:
        lines += [f"The options could not be computed: {failed}", ""]
    elif picked:
        lines = ["**The plan could not be made.**", ""]
    elif any(exchange.tool_name in SIMULATIONS for exchange in conversation.evidence.get(OPTIMIZATIONS, ())):
        lines += [
            "No option has a computed saving: none saves anything in this data, or the data does not tell its cost.",
            "",
        ]
    else:
        lines += ["Ask for savings first, for example “Cut spend 20 %, keep quality: what do I do?”.", ""]
    return "\n".join([*lines, *failures(conversation.exchanges)]).strip() + "\n"


def _last(conversation: Conversation, tool_name: str) -> Exchange | None:
    found = [one for one in conversation.exchanges if one.tool_name == tool_name and one.status == SUCCESS]
    return found[-1] if found else None


def goals_table(option: Option | None) -> list[str]:
    """Return the goals of a combination as a table: what was asked, what comes out, met or not."""
    rows = [
        [
            text(goal, "goal"),
            _amount(goal, "limit", absent=""),
            _amount(goal, "value", absent="not known"),
            "met" if child(goal, "met") is True else "not met" if child(goal, "met") is False else "not known",
            text(goal, "note"),
        ]
        for goal in children(option.data if option else None, "constraints")
    ]
    return [*table(["Goal", "Limit", "With the options", "Met", "Note"], rows, texts=5), ""] if rows else []


def _amount(goal: JsonObject, key: str, *, absent: str) -> str:
    value, unit = number(goal, key), text(goal, "unit")
    if value is None:
        return text(goal, key) or absent
    return money(value) if unit.startswith("USD") else f"{count(value) if value >= 1 else f'{value:g}'} {unit}".strip()

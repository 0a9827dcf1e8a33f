"""Plans: the order respects what each step needs, circles and unknown steps are refused, progress is tracked."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import Tool, ToolContext, ToolError
from agent_service.tools.actions.plans import Step, in_order
from agent_service.tools.actions.tools import action_tools
from storage.memory import MemoryStorage
from tests.support.datasets import NOW, KeptArtifacts, StoppedClock, items, part
from tests.support.evidence import an_option, citing, options_record


def a_step(step_id: str, *after: str) -> Step:
    return Step(step_id, f"Do {step_id}", "Engineer", "S", "It works.", "Undo it.", after)


def step_args(step_id: str, *after: str, **more: object) -> dict[str, object]:
    words = {"what": f"Do {step_id}", "owner_role": "Engineer", "validation": "It works.", "rollback": "Undo it."}
    return {"id": step_id, "effort": "S", "depends_on": list(after), **words, **more}


class Office:
    """The tools over a storage in memory."""

    def __init__(self) -> None:
        self.storage = MemoryStorage(lambda: NOW)
        tools = action_tools(self.storage.plans, self.storage.files, StoppedClock(), None)
        self.tools: dict[str, Tool[BaseModel]] = {tool.name: tool for tool in tools}

    async def call(self, name: str, context: ToolContext | None = None, **args: object) -> JsonObject:
        tool = self.tools[name]
        return (await tool.run(context or citing(), tool.args.model_validate(args))).result


# ---- The order ----


def test_each_step_comes_after_what_it_needs_and_else_in_the_given_order() -> None:
    steps = [a_step("d", "b", "c"), a_step("b", "a"), a_step("c", "a"), a_step("a"), a_step("z")]
    assert [step.id for step in in_order(steps)] == ["a", "b", "c", "d", "z"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([a_step("a", "a")], "a → a"),
        ([a_step("a", "b"), a_step("b", "a")], "a → b → a"),
        ([a_step("start"), a_step("x", "start", "z"), a_step("y", "x"), a_step("z", "y")], "x → z → y → x"),
        ([a_step("a", "nowhere")], "a depends on nowhere"),
        ([a_step("a"), a_step("a")], "a stands for several"),
    ],
    ids=["itself", "two", "three", "unknown", "twice"],
)
def test_what_has_no_order_is_refused_and_named(steps: list[Step], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        in_order(steps)


graphs = st.integers(1, 12).flatmap(
    lambda count: st.lists(st.lists(st.integers(0, count - 1), max_size=3, unique=True), min_size=count, max_size=count)
)


@given(graphs)
def test_a_plan_is_refused_exactly_when_it_has_a_cycle(edges: list[list[int]]) -> None:
    steps = [a_step(f"s{number}", *(f"s{needed}" for needed in needs)) for number, needs in enumerate(edges)]
    try:
        ordered = in_order(steps)
    except ToolError:
        assert has_cycle(edges)
        return
    assert not has_cycle(edges)
    assert sorted(step.id for step in ordered) == sorted(step.id for step in steps)
    place = {step.id: number for number, step in enumerate(ordered)}
    assert all(place[needed] < place[step.id] for step in ordered for needed in step.depends_on)


def has_cycle(edges: list[list[int]]) -> bool:
    """Whether some node reaches itself: by repeated squaring of what is reachable."""
    reach = [set(needs) for needs in edges]
    for _ in edges:
        reach = [found.union(*(reach[node] for node in found)) for found in reach]
    return any(node in found for node, found in enumerate(reach))


# ---- create_action_plan ----


async def test_a_plan_is_ordered_saved_and_exported_with_the_savings_of_its_options() -> None:
    office = Office()
    run = citing(options_record(an_option()))
    option = {"tool_call_id": "2-optimizations.c1", "option_id": "route"}
    result = await office.call(
        "create_action_plan",
        run,
        title="Less | <b>spend</b>",
        steps=[step_args("roll-out", "pilot", option=option), step_args("pilot")],
    )
    assert [(step["order"], step["id"]) for step in items(result, "steps")] == [(1, "pilot"), (2, "roll-out")]
    assert [step["saving_usd"] for step in items(result, "steps")] == [None, 12.5]
    assert part(result, "progress") == {"todo": 2, "doing": 0, "done": 0, "blocked": 0}
    assert part(result, "next_steps") == ["pilot"]
    assert isinstance(run.artifacts, KeptArtifacts)
    kept = {name.rpartition(".")[2]: content for name, (_, content) in run.artifacts.kept.items()}
    assert json.loads(kept["json"])["steps"] == result["steps"]
    document = kept["md"].decode()
    assert document.startswith("# Less \\| \\<b\\>spend\\</b\\>\n")
    assert document.index("| 1 | pilot") < document.index("| 2 | roll-out")
    assert "$12.50 (25.0 %), option route of call 2-optimizations.c1" in document
    saved = await office.storage.plans.get("ann", str(result["plan_id"]))
    assert (saved.version, saved.thread_id, saved.create_time) == (1, "thread", NOW)


async def test_a_call_that_runs_again_keeps_its_plan_and_what_was_done_since() -> None:
    office = Office()
    first = await office.call("create_action_plan", title="T", steps=[step_args("a")])
    await office.call("track_action", step_id="a", status="done")
    again = await office.call("create_action_plan", title="T", steps=[step_args("a")])
    assert again["plan_id"] == first["plan_id"]
    assert part(await office.call("track_action"), "progress", "done") == 1
    other = await office.call("create_action_plan", citing(call_id="other"), title="T", steps=[step_args("a")])
    assert other["plan_id"] != first["plan_id"]


@pytest.mark.parametrize(
    ("citation", "said"),
    [
        ({"tool_call_id": "9", "option_id": "route"}, r"no call '9'.*2-optimizations\.c1 \(simulate_routing\)"),
        ({"tool_call_id": "2-optimizations.c1", "option_id": "x"}, "no option 'x'. It has: route"),
        ({"tool_call_id": "1-data.large", "option_id": "x"}, "too large to work with"),
    ],
    ids=["call", "option", "large"],
)
async def test_a_citation_that_leads_nowhere_is_refused(citation: dict[str, str], said: str) -> None:
    large = replace(options_record(an_option(), call_id="1-data.large"), result=None)
    with pytest.raises(ToolError, match=said):
        await Office().call(
            "create_action_plan",
            citing(options_record(an_option()), large),
            title="T",
            steps=[step_args("a", option=citation)],
        )


@pytest.mark.parametrize(("count", "fits"), [(40, True), (41, False)], ids=["most", "too-many"])
async def test_a_plan_has_at_most_forty_steps(count: int, *, fits: bool) -> None:
    steps = [step_args(f"s{number}") for number in range(count)]
    if fits:
        assert len(items(await Office().call("create_action_plan", title="T", steps=steps), "steps")) == count
    else:
        with pytest.raises(ValidationError):
            await Office().call("create_action_plan", title="T", steps=steps)


# ---- track_action ----


async def test_a_step_gets_a_status_and_a_note_and_the_next_ones_follow() -> None:
    office = Office()
    await office.call("create_action_plan", title="T", steps=[step_args("a"), step_args("b", "a"), step_args("c", "b")])
    result = await office.call("track_action", step_id="a", status="done", note="went well")
    assert (result["version"], result["changed"], result["next_steps"]) == (2, "a", ["b"])
    assert next((step["status"], step["note"]) for step in items(result, "steps")) == ("done", "went well")
    assert result["warnings"] == []
    early = await office.call("track_action", step_id="c", status="doing")
    assert early["warnings"] == ["c is doing, but b is not done yet"]


async def test_the_same_change_again_changes_nothing() -> None:
    office = Office()
    await office.call("create_action_plan", title="T", steps=[step_args("a")])
    versions = [(await office.call("track_action", step_id="a", status="blocked"))["version"] for _ in range(2)]
    assert versions == [2, 2]


async def test_without_a_name_it_is_the_conversations_newest_plan() -> None:
    office = Office()
    here = await office.call("create_action_plan", title="here", steps=[step_args("a")])
    elsewhere = replace(citing(call_id="2"), thread_id="elsewhere")
    there = await office.call("create_action_plan", elsewhere, title="there", steps=[step_args("a")])
    assert (await office.call("track_action"))["plan_id"] == here["plan_id"]
    assert (await office.call("track_action", elsewhere))["plan_id"] == there["plan_id"]
    third = await office.call("track_action", replace(citing(), thread_id="third"))
    assert third["this_conversation"] is False


async def test_somebody_elses_plan_is_not_there() -> None:
    office = Office()
    plan = await office.call("create_action_plan", title="T", steps=[step_args("a")])
    bob = replace(citing(), user_id="bob")
    with pytest.raises(ToolError, match="There is no plan"):
        await office.call("track_action", bob, plan_id=plan["plan_id"])
    with pytest.raises(ToolError, match="There is no plan yet"):
        await office.call("track_action", bob)


@pytest.mark.parametrize(
    ("args", "said"),
    [({"step_id": "z"}, "no step 'z'. Its steps are: a"), ({"status": "done"}, "Which step is done")],
    ids=["unknown", "which"],
)
async def test_what_cannot_be_tracked_is_said(args: dict[str, str], said: str) -> None:
    office = Office()
    await office.call("create_action_plan", title="T", steps=[step_args("a")])
    with pytest.raises(ToolError, match=said):
        await office.call("track_action", None, **args)

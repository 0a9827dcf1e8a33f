"""The offline model as the actions agent: sensible steps from computed options, and only what was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from agent_service.engine.events import JsonObject
from agent_service.llm.offline import planner
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Saying, Words, children, names, text
from agent_service.llm.offline.facts import SUCCESS
from agent_service.llm.offline.understanding import Facet, Understanding, understand
from agent_service.tools.actions.create import CreateActionPlanArgs
from agent_service.tools.actions.export import ExportPolicyArgs
from agent_service.tools.actions.plans import Step, in_order
from agent_service.tools.actions.track import TrackActionArgs
from tests.support.datasets import NOW
from tests.support.evidence import an_option

TOOLS = frozenset({"create_action_plan", "track_action", "export_policy", "apply_policy"})
CALL = "2-optimizations.c1"


def exchange(tool: str, result: JsonObject | None, *, call_id: str = "", args: JsonObject | None = None) -> Exchange:
    return Exchange(tool, args or {}, "success" if result is not None else "error", tool, result, "It broke.", call_id)


def options(*found: JsonObject) -> Exchange:
    return exchange("simulate_routing", {"options": list(found)}, call_id=CALL)


def asked(
    request: str, *evidence: Exchange, done: Sequence[Exchange] = (), findings: Mapping[str, JsonObject] | None = None
) -> Conversation:
    return Conversation(request, (), NOW, findings or {}, tuple(done), TOOLS, evidence={"optimizations": evidence})


def calls(sayings: Sequence[Saying]) -> dict[str, JsonObject]:
    return {saying.tool_name: saying.args for saying in sayings if isinstance(saying, Call)}


def words(sayings: Sequence[Saying]) -> str:
    return "\n".join(saying.text for saying in sayings if isinstance(saying, Words))


def with_facets(monkeypatch: pytest.MonkeyPatch, *facets: Facet, follows: bool = False) -> None:
    """Let the message ask for these, whatever its words are: how words are understood is tested elsewhere."""

    def understood(request: str, earlier: Sequence[str], now: datetime) -> Understanding:
        return replace(understand(request, earlier, now), facets=frozenset(facets), follows=follows)

    monkeypatch.setattr(planner, "understand", understood)


def test_each_option_is_piloted_validated_rolled_out_and_watched() -> None:
    evidence = options(
        an_option("a"), an_option("b", saving=4.0, kind="caching", validation=None, quality_risk={"level": "none"})
    )
    made = calls(planner.reply(asked("cut spend 20 %", evidence)))
    args = CreateActionPlanArgs.model_validate(made["create_action_plan"])
    told = [step.what.partition(":")[0].partition(" (")[0].partition(" of the")[0] for step in args.steps]
    assert told == [
        "Pilot on a small sample",
        "Validate the quality",
        "Roll out",
        "Pilot on a small sample",
        "Roll out",
        "Monitor",
    ]
    assert [step.id for step in args.steps] == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert [step.depends_on for step in args.steps] == [[], ["s1"], ["s2"], [], ["s4", "s3"], ["s3", "s5"]]
    assert {step.id: step.option.option_id for step in args.steps if step.option} == {"s3": "a", "s5": "b"}
    assert args.steps[1].validation == "Judge 1,237 answers with the change and 1,237 without."
    assert args.steps[2].rollback == "Send them to gpt-4o again."
    order = in_order(
        [Step(s.id, s.what, s.owner_role, s.effort, s.validation, s.rollback, tuple(s.depends_on)) for s in args.steps]
    )
    assert [step.id for step in order] == [step.id for step in args.steps]


def test_the_combination_decides_which_options_and_is_what_is_exported() -> None:
    parts = [{"tool_call_id": CALL, "option_id": name} for name in ("b", "a")]
    combined = exchange("combine_options", {"best": an_option("b+a", parts=parts, constraints=[])}, call_id="c9")
    evidence = options(an_option("a"), an_option("b", saving=4.0), an_option("c", saving=30.0))
    made = calls(planner.reply(asked("cut spend 20 %", evidence, combined)))
    steps = children(made["create_action_plan"], "steps")
    assert [text(step, "option", "option_id") for step in steps if text(step, "option", "option_id")] == ["b", "a"]
    exported = ExportPolicyArgs.model_validate(made["export_policy"])
    assert [(one.tool_call_id, one.option_id) for one in exported.options] == [("c9", "b+a")]


def test_without_a_combination_it_is_the_best_of_each_kind_that_saves() -> None:
    found = [
        an_option("a"),
        an_option("a2", saving=9.0),
        an_option("b", saving=1.0, kind="caching"),
        an_option("c", saving=-3.0, kind="x"),
    ]
    made = calls(planner.reply(asked("cut spend 20 %", options(*found))))
    steps = children(made["create_action_plan"], "steps")
    assert [text(step, "option", "option_id") for step in steps if text(step, "option", "option_id")] == ["a", "b"]


def test_a_question_is_decided_first() -> None:
    made = calls(planner.reply(asked("cut spend", options(an_option(question="May reports wait a day?")))))
    first, second = children(made["create_action_plan"], "steps")[:2]
    assert text(first, "what") == "Decide: May reports wait a day?"
    assert names(second, "depends_on") == ["s1"]


def test_titles_that_are_long_still_fit_the_tool() -> None:
    evidence = options(an_option(title="t" * 2000, rollback="r" * 2000, validation={"how": "v" * 2000}))
    made = calls(planner.reply(asked("x" * 5000, evidence)))
    CreateActionPlanArgs.model_validate(made["create_action_plan"])


def test_a_policy_is_applied_only_when_that_is_asked_for_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = exchange("create_action_plan", {"steps": [{"id": "s1"}], "next_steps": ["s1"]})
    exported = exchange("export_policy", {"artifact_id": "f1", "name": "router-policy.json"})
    conversation = asked("and do it", options(an_option()), done=(plan, exported))
    with_facets(monkeypatch, Facet.PLAN)
    assert not calls(planner.reply(conversation))
    with_facets(monkeypatch, Facet.APPLY)
    assert calls(planner.reply(conversation)) == {"apply_policy": {"policy": "f1"}}
    refused = exchange("apply_policy", None)
    said = words(planner.reply(replace(conversation, exchanges=(plan, exported, refused))))
    assert "It broke." in said
    failed = asked("and do it", options(an_option()), done=(plan, exchange("export_policy", None)))
    assert not calls(planner.reply(failed))


@pytest.mark.parametrize(
    ("request_", "args"),
    [
        ("step 2 is done", {"step_id": "s2", "status": "done"}),
        ("we started s3", {"step_id": "s3", "status": "doing"}),
        ("action 1 is blocked by legal", {"step_id": "s1", "status": "blocked"}),
        ("how far is the plan?", {}),
    ],
    ids=["done", "doing", "blocked", "shown"],
)
def test_progress_is_tracked_and_no_second_plan_made(
    monkeypatch: pytest.MonkeyPatch, request_: str, args: JsonObject
) -> None:
    with_facets(monkeypatch, Facet.TRACK)
    made = calls(planner.reply(asked(request_, options(an_option()))))
    assert made == {"track_action": args}
    TrackActionArgs.model_validate(args)


SAVED: Mapping[str, JsonObject] = {
    "here": {"this_conversation": True, "steps": [{"id": "s1"}], "next_steps": []},
    "elsewhere": {"this_conversation": False, "steps": [{"id": "s1"}], "next_steps": []},
}


@pytest.mark.parametrize(("where", "made"), [("here", False), ("elsewhere", True), ("nowhere", True)])
def test_what_goes_on_with_a_plan_makes_no_second_one(
    monkeypatch: pytest.MonkeyPatch, where: str, *, made: bool
) -> None:
    with_facets(monkeypatch, Facet.PDF, follows=True)
    evidence = options(an_option())
    assert calls(planner.reply(asked("as PDF", evidence))) == {"track_action": {}}
    found = exchange("track_action", SAVED.get(where))
    then = planner.reply(asked("as PDF", evidence, done=(found,)))
    assert ("create_action_plan" in calls(then)) is made
    exported = exchange("export_policy", {"artifact_id": "f", "name": "p.json"})
    if not made:
        said = words(planner.reply(asked("as PDF", evidence, done=(found, exported))))
        assert said.startswith("**The plan has 1 step")
    assert "create_action_plan" in calls(planner.reply(asked("a new plan as PDF", evidence)))


def test_the_answer_is_the_plan_as_a_table() -> None:
    steps: list[JsonObject] = [
        {
            "id": "s1",
            "what": "Pilot | it",
            "owner_role": "Engineer",
            "effort": "S",
            "depends_on": [],
            "status": "todo",
            "saving_usd": 12.5,
            "validation": "V.",
            "rollback": "R.",
        }
    ]
    plan = exchange(
        "create_action_plan",
        {
            "steps": steps,
            "next_steps": ["s1"],
            "files": [{"artifact_id": "x", "name": "action-plan-1.md"}],
        },
    )
    said = words(planner.reply(asked("cut spend", options(an_option()), done=(plan,))))
    assert said.startswith("**The plan has 1 step: Option route would save $12.50 (25.0 %) of the measured cost.**\n")
    assert "| s1 | Pilot \\| it | Engineer | S | - | todo | $12.50 |" in said
    assert "`action-plan-1.md`" in said
    assert "Next is s1, by the engineer. It worked when: V. Rollback: R." in said


@pytest.mark.parametrize(
    ("evidence", "findings", "said"),
    [
        ((), {}, "Ask for savings first"),
        ((), {"optimizations": {"failed": "It took too long."}}, "could not be computed: It took too long."),
        ((options(an_option(saving=-1.0)),), {}, "No option has a computed saving"),
        ((Exchange("forecast_capacity", {}, SUCCESS, "", {}, ""),), {}, "Ask for savings first"),
    ],
    ids=["nothing", "failed", "no-saving", "forecast"],
)
def test_without_options_there_is_no_plan_and_it_says_why(
    evidence: tuple[Exchange, ...], findings: Mapping[str, JsonObject], said: str
) -> None:
    sayings = planner.reply(asked("cut spend", *evidence, findings=findings))
    assert not calls(sayings)
    assert words(sayings).startswith("**There is no plan")
    assert said in words(sayings)

"""The offline model as the reporting agent: it always answers, in full, in part, or with guidance."""

from collections.abc import Mapping, Sequence

import pytest

from agent_service.engine.events import JsonObject
from agent_service.llm.offline import reporter
from agent_service.llm.offline.conversation import Call, Conversation, Exchange, Saying, Words, children
from agent_service.tools.reporting.create_report import CreateReportArgs
from agent_service.tools.reporting.narrative import Sources, checked
from agent_service.tools.reporting.render_chart import RenderChartArgs
from agent_service.tools.reporting.series import series
from tests.support.datasets import NOW
from tests.support.evidence import COSTS, PATTERN, USAGE, a_record, an_option

TOOLS = frozenset({"render_chart", "create_report"})
GOALS = [
    {"goal": "cost -20 %", "limit": 40.0, "value": 37.5, "unit": "USD", "met": True, "note": ""},
    {"goal": "latency -50 %", "limit": 400.0, "value": None, "unit": "ms", "met": None, "note": "not measurable"},
]


def exchange(tool: str, result: JsonObject | None, *, call_id: str = "", args: JsonObject | None = None) -> Exchange:
    return Exchange(tool, args or {}, "success" if result is not None else "error", tool, result, "It broke.", call_id)


DATA = (
    exchange("usage_summary", USAGE, call_id="1-data.c1"),
    exchange("cost_breakdown", COSTS, call_id="1-data.c2"),
    exchange("usage_pattern", PATTERN, call_id="1-data.c3"),
)
BEST = an_option("a+b", title="Both", parts=[{"option_id": "a"}, {"option_id": "b"}], constraints=GOALS)
OPTIMIZATIONS = (
    exchange(
        "simulate_routing",
        {"options": [an_option("a", missing=["say which may wait"]), an_option("b", saving=4.0)]},
        call_id="o1",
    ),
    exchange("combine_options", {"best": BEST, "options": [{"id": "a"}, {"id": "b"}]}, call_id="o2"),
)
PLAN = exchange(
    "create_action_plan",
    {
        "steps": [
            {
                "id": "s1",
                "what": "Pilot it",
                "owner_role": "Engineer",
                "effort": "S",
                "status": "todo",
                "validation": "V.",
                "rollback": "R.",
            }
        ],
        "next_steps": ["s1"],
        "files": [{"artifact_id": "x", "name": "action-plan-1.md"}],
    },
    call_id="p1",
)
EVERYTHING: Mapping[str, tuple[Exchange, ...]] = {"data": DATA, "optimizations": OPTIMIZATIONS, "actions": (PLAN,)}


def asked(
    request: str,
    evidence: Mapping[str, tuple[Exchange, ...]] = EVERYTHING,
    *,
    done: Sequence[Exchange] = (),
    findings: Mapping[str, JsonObject] | None = None,
) -> Conversation:
    return Conversation(request, (), NOW, findings or {}, tuple(done), TOOLS, evidence=evidence)


def calls(sayings: Sequence[Saying]) -> list[Call]:
    return [saying for saying in sayings if isinstance(saying, Call)]


def words(sayings: Sequence[Saying]) -> str:
    return "\n".join(saying.text for saying in sayings if isinstance(saying, Words))


def drawn(call: Call, chart_id: str) -> Exchange:
    return exchange(
        "render_chart",
        {"chart_id": chart_id, "artifact_id": chart_id, "name": f"{chart_id}.svg", "title": "T"},
        args=call.args,
    )


REPORT = "report for management, with charts"
SAVE = "cut spend 20 %, keep quality: what do I do?"


@pytest.mark.parametrize(("request_", "most"), [(REPORT, 6), (SAVE, 2)], ids=["report", "answer"])
def test_only_charts_that_the_evidence_supports_are_drawn(request_: str, most: int) -> None:
    made = calls(reporter.reply(asked(request_)))
    assert 0 < len(made) <= most
    records = {
        one.tool_call_id: a_record(one.tool_name, one.result, call_id=one.tool_call_id)
        for exchanges in EVERYTHING.values()
        for one in exchanges
    }
    for call in made:
        args = RenderChartArgs.model_validate(call.args)
        assert series(args.kind, records[args.tool_call_id], args.which) is not None, args
    assert (made[0].args["kind"], made[0].args["which"]) == ("savings_waterfall", "a+b")
    assert len({str(call.args) for call in made}) == len(made)


def test_a_report_cites_what_was_measured_and_its_words_pass_the_check() -> None:
    first = calls(reporter.reply(asked(REPORT)))
    done = [drawn(call, f"chart{number}") for number, call in enumerate(first)]
    (call,) = calls(reporter.reply(asked(REPORT, done=done)))
    args = CreateReportArgs.model_validate(call.args)
    assert args.sources == ["1-data.c1", "1-data.c2", "1-data.c3", "o1", "o2", "p1"]
    assert args.charts == [f"chart{number}" for number in range(len(first))]
    cited = [a_record(one.tool_name, one.result) for exchanges in EVERYTHING.values() for one in exchanges]
    for section in args.texts:
        text = checked(section.text, Sources.of(cited, ""))
        assert r"300 [\[1\]](#source-1) requests cost \$42.50 [\[1\]](#source-1)." in text
        assert "would save" in text


def test_words_that_are_refused_are_left_out_of_the_report() -> None:
    (first,) = calls(reporter.reply(asked(REPORT, done=[drawn(Call("render_chart", {}), "c")])))
    refused = exchange("create_report", None, args=first.args)
    (second,) = calls(reporter.reply(asked(REPORT, done=[drawn(Call("render_chart", {}), "c"), refused])))
    assert second.tool_name == "create_report"
    assert second.args == {name: value for name, value in first.args.items() if name != "texts"}
    again = exchange("create_report", None, args=second.args)
    sayings = reporter.reply(asked(REPORT, done=[drawn(Call("render_chart", {}), "c"), refused, again]))
    assert not calls(sayings)
    assert "It broke." in words(sayings)


def test_the_full_answer_has_headline_options_goals_plan_files_and_source() -> None:
    said = words(reporter.reply(asked(SAVE, done=[drawn(Call("render_chart", {}), "one")])))
    saved = "the combination of 2 options would save $12.50, 25.0 % of the measured cost"
    assert said.startswith(f"**In march.csv, {saved}; that meets every goal, as far as a usage log can tell.**\n")
    assert "- 300 requests cost $42.50.\n" in said
    assert "| cost -20 % | $40.00 | $37.50 | met |  |" in said
    assert "| latency -50 % | 400 ms | not known | not known | not measurable |" in said
    row = "$12.50 | 25.0 % | low | M | Send them to gpt-4o again. |"
    assert f"| The combination of 2 options |  | {row}" in said
    assert f"| Option a | yes | {row}" in said
    assert "| Option b | yes | $4.00 | 8.0 % |" in said
    assert "do not add up" in said
    assert "| s1 | Pilot it | Engineer | S |" in said
    for name in ("action-plan-1.md", "one.svg"):
        assert f"`{name}`" in said
    assert "- **user**: Costs by user are not known. Add a column user." in said
    assert "- say which may wait" in said
    assert "*Data: march.csv" in said


def test_the_actions_agents_own_words_are_told_for_they_say_what_was_applied_and_what_failed() -> None:
    plan = "**The plan has 1 step.**\n\n| s1 |\n\n### What did not work\n\n- No webhook is configured."
    findings: dict[str, JsonObject] = {"actions": {"text": plan}, "optimizations": {"text": "options"}}
    said = words(reporter.reply(asked(SAVE, findings=findings, done=[drawn(Call("render_chart", {}), "one")])))
    assert f"### Plan\n\n{plan}\n" in said
    assert said.count("action-plan-1.md") == said.count("### Files") == 1
    assert said.count("would save") == 2


def test_a_plan_that_is_only_tracked_is_the_answer() -> None:
    findings: dict[str, JsonObject] = {"actions": {"text": "**s2 is done now.**"}}
    tracked = exchange("track_action", {"changed": "s2", "steps": []}, call_id="t")
    evidence = {"data": DATA, "optimizations": OPTIMIZATIONS, "actions": (tracked,)}
    sayings = reporter.reply(asked("step 2 is done", evidence, findings=findings))
    assert not calls(sayings)
    assert words(sayings).startswith("**s2 is done now.**\n")


def test_what_was_computed_beside_options_is_told_too() -> None:
    forecast = Exchange("forecast_capacity", {}, "success", "Peaks of 750 RPM do not fit 500 RPM", {}, "", "o3")
    evidence = {**EVERYTHING, "optimizations": (*OPTIMIZATIONS, forecast)}
    said = words(reporter.reply(asked(SAVE, evidence, done=[drawn(Call("render_chart", {}), "one")])))
    assert "### Also computed\n\n- Peaks of 750 RPM do not fit 500 RPM\n" in said


def test_a_combination_that_misses_a_goal_is_only_the_nearest() -> None:
    nearest = exchange("combine_options", {"best": None, "nearest": BEST, "options": []}, call_id="o2")
    evidence = {"data": DATA, "optimizations": (OPTIMIZATIONS[0], nearest)}
    said = words(reporter.reply(asked(SAVE, evidence, done=[drawn(Call("render_chart", {}), "one")])))
    assert "not every goal can be met, and this comes nearest.**" in said.splitlines()[0]


def test_facts_without_options_are_a_partial_answer_that_says_what_failed() -> None:
    findings: dict[str, JsonObject] = {"optimizations": {"failed": "Optimizations took too long."}}
    evidence = {"data": DATA}
    sayings = reporter.reply(asked(SAVE, evidence, findings=findings, done=[drawn(Call("render_chart", {}), "one")]))
    said = words(sayings)
    assert "300 requests" in said
    assert "### What could not be done\n\n- Optimizations: Optimizations took too long." in said


@pytest.mark.parametrize(
    "findings",
    [
        {},
        {
            "data": {"failed": "The data could not be read."},
            "optimizations": {"failed": "No data."},
            "actions": {"failed": "x"},
        },
    ],
    ids=["nothing", "nothing-but-failures"],
)
@pytest.mark.parametrize(
    "request_", [SAVE, REPORT, "hello", "", "x" * 4000], ids=["save", "report", "hello", "empty", "long"]
)
def test_without_anything_measured_there_is_guidance_and_nothing_made_up(
    findings: Mapping[str, JsonObject], request_: str
) -> None:
    sayings = reporter.reply(asked(request_, {}, findings=findings))
    assert not calls(sayings)
    said = words(sayings)
    assert said.startswith("**I cannot answer this with numbers")
    assert "### What to bring" in said
    assert "$" not in said
    assert all(str(finding["failed"]) in said for finding in findings.values())


def test_where_the_cost_is_not_known_no_option_is_said_to_save_nothing() -> None:
    unpriced = an_option("trim", saving=0.0, cost_before_usd=0.0, cost_after_usd=0.0)
    computed = Exchange(
        "simulate_routing", {}, "success", "Routing: no model is known", {"options": [unpriced]}, "", "o1"
    )
    evidence = {"data": DATA, "optimizations": (computed,)}
    findings: dict[str, JsonObject] = {"optimizations": {"text": "Its own words."}}
    assert [call.args["kind"] for call in calls(reporter.reply(asked(SAVE, evidence)))] == [
        "cost_by_group",
        "cost_over_time",
    ]
    said = words(reporter.reply(asked(SAVE, evidence, findings=findings, done=[drawn(Call("render_chart", {}), "c")])))
    assert "300 requests" in said.splitlines()[0]
    assert "### No saving could be computed\n\n- Routing: no model is known\n" in said
    assert "Option trim" not in said
    assert "Its own words." not in said
    assert "\n\n\n" not in said


def test_a_forecast_alone_is_told_as_the_optimizations_agent_wrote_it() -> None:
    forecast = Exchange("forecast_capacity", {}, "success", "It fits", {}, "", "o3")
    findings: dict[str, JsonObject] = {
        "optimizations": {"text": "**It fits: 450 of 500 RPM.**"},
        "corpus_admin": {"text": "Docs."},
    }
    evidence = {"data": DATA, "optimizations": (forecast,)}
    said = words(
        reporter.reply(asked("will it fit?", evidence, findings=findings, done=[exchange("render_chart", None)]))
    )
    assert said.startswith("**It fits: 450 of 500 RPM.**\n\nDocs.\n")
    assert "It broke." in said


def test_guidance_names_what_the_data_lacks() -> None:
    said = words(reporter.reply(asked(SAVE, {}, findings={"triage": {"missing": ["model", "timestamp"]}})))
    assert "The data that there is lacks: model, timestamp.\n" in said


def test_what_others_found_is_told_in_their_words() -> None:
    findings: dict[str, JsonObject] = {
        "corpus_admin": {"text": "**The runbooks say: retry twice.**"},
        "data": {"text": "facts"},
    }
    said = words(
        reporter.reply(
            asked("costs and runbooks", {"data": DATA}, findings=findings, done=[drawn(Call("render_chart", {}), "c")])
        )
    )
    assert "**The runbooks say: retry twice.**" in said
    assert "300 requests" in said


@pytest.mark.parametrize(
    "broken", [None, {}, {"groups": "x", "totals": [], "options": [1, {}], "best": 3}], ids=["large", "empty", "odd"]
)
def test_odd_results_do_not_keep_it_from_answering(broken: JsonObject | None) -> None:
    tools = (
        "usage_summary",
        "cost_breakdown",
        "latency_analysis",
        "usage_pattern",
        "combine_options",
        "create_action_plan",
    )
    odd = tuple(Exchange(tool, {}, "success", tool, broken, "", f"id-{tool}") for tool in tools)
    evidence = dict.fromkeys(("data", "optimizations", "actions"), odd)
    for request_ in (SAVE, REPORT):
        sayings = reporter.reply(asked(request_, evidence))
        assert calls(sayings) or words(sayings).strip()
        done = [exchange("render_chart", None), exchange("create_report", None)]
        assert words(reporter.reply(asked(request_, evidence, done=done))).strip()
    assert children(broken, "nothing") == []

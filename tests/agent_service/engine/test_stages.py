"""Who works on which request, with whom at the same time, and who writes the answer."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agent_service.engine.agent import Agent
from agent_service.engine.intents import INTENT_RULES, SPECIALTIES, Intent, Sufficiency
from agent_service.engine.stages import Level, Stages, ending_in_words, route
from tests.support.conversations import AGENTS
from tests.support.loops import SPECIALISTS, triaged

EVERYBODY = {agent.name: agent for agent in (*AGENTS, *SPECIALISTS, Agent("plugged", "Plugged", "Does.", "Do."))}
SHIPPED_FIRST = {agent.name: agent for agent in AGENTS}


class Typed(BaseModel):
    """A typed output."""


def without(*names: str) -> dict[str, Agent]:
    return {name: agent for name, agent in EVERYBODY.items() if name not in names}


OPTIMIZED: Stages = (("data",), ("optimizations",), ("actions",), ("reporting",))


@pytest.mark.parametrize(
    ("intent", "sufficiency", "named", "stages", "level"),
    [
        (Intent.COST_ANALYSIS, "sufficient", (), (("data",),), "full"),
        (Intent.COST_ANALYSIS, "insufficient", (), (("data",),), "full"),
        (Intent.BENCHMARKING, "partial", (), (("data",),), "full"),
        (Intent.PRICING, "insufficient", (), (("data",),), "full"),
        (Intent.COST_ANALYSIS, "sufficient", ("data", "optimizations", "actions", "reporting"), (("data",),), "full"),
        (Intent.OPTIMIZATION, "sufficient", (), OPTIMIZED, "full"),
        (Intent.OPTIMIZATION, "partial", (), (("data",), ("optimizations",), ("reporting",)), "partial"),
        (Intent.OPTIMIZATION, "insufficient", ("data", "optimizations"), (("reporting",),), "guidance"),
        (Intent.REPORTING, "sufficient", (), OPTIMIZED, "full"),
        (Intent.REPORTING, "partial", (), (("data",), ("reporting",)), "partial"),
        (Intent.REPORTING, "insufficient", (), (("reporting",),), "guidance"),
        (Intent.CORPUS, "insufficient", (), (("corpus_admin",),), "full"),
        (Intent.SYNTHETIC, "insufficient", (), (("synthetic_data",),), "full"),
        (Intent.TECHNICAL, "insufficient", (), (("supervisor",),), "full"),
        (Intent.TECHNICAL, "insufficient", ("data",), (("data",),), "full"),
        (Intent.GENERAL, "insufficient", (), (("supervisor",),), "full"),
        (Intent.GENERAL, "insufficient", ("data",), (("data",),), "full"),
        (Intent.GENERAL, "insufficient", ("plugged",), (("plugged",),), "full"),
        (Intent.COST_ANALYSIS, "sufficient", ("corpus_admin",), (("data", "corpus_admin"), ("reporting",)), "full"),
        (Intent.CORPUS, "insufficient", ("data",), (("corpus_admin", "data"), ("reporting",)), "full"),
        (
            Intent.OPTIMIZATION,
            "sufficient",
            ("corpus_admin", "synthetic_data", "corpus_admin"),
            (("data", "corpus_admin", "synthetic_data"), *OPTIMIZED[1:]),
            "full",
        ),
        (Intent.OPTIMIZATION, "insufficient", ("corpus_admin",), (("corpus_admin",), ("reporting",)), "guidance"),
        (Intent.GENERAL, "sufficient", ("triage", "supervisor", "nobody"), (("supervisor",),), "full"),
    ],
)
def test_the_table(
    intent: Intent, sufficiency: Sufficiency, named: Sequence[str], stages: Stages, level: Level
) -> None:
    found = route(triaged(intent, *named, sufficiency=sufficiency), EVERYBODY)
    assert (found.stages, found.level, found.absent) == (stages, level, ())


@pytest.mark.parametrize(
    ("agents", "sufficiency", "stages", "absent"),
    [
        (without("reporting"), "insufficient", (("data",), ("optimizations",), ("supervisor",)), {"reporting"}),
        (without("optimizations"), "sufficient", (("data",), ("actions",), ("reporting",)), {"optimizations"}),
        (SHIPPED_FIRST, "sufficient", (("data",),), {"optimizations", "actions", "reporting"}),
        (
            without("data", *SPECIALTIES),
            "sufficient",
            (("supervisor",),),
            {"data", "optimizations", "actions", "reporting"},
        ),
    ],
    ids=["no reporting", "no optimizations", "only data", "nobody"],
)
def test_who_is_not_installed_is_absent(
    agents: dict[str, Agent], sufficiency: Sufficiency, stages: Stages, absent: set[str]
) -> None:
    agents = {**agents}
    if "optimizations" in agents:
        agents["optimizations"] = Agent("optimizations", "Options", "Computes.", "Compute.", output=Typed)
    found = route(triaged(Intent.OPTIMIZATION, sufficiency=sufficiency), agents)
    assert (found.stages, set(found.absent)) == (stages, absent)


def test_who_answers_in_a_type_is_put_into_words_by_somebody() -> None:
    typed = {**EVERYBODY, "data": Agent("data", "Data", "Measures.", "Measure.", output=Typed)}
    assert ending_in_words((("data",),), typed) == (("data",), ("reporting",))
    typed["reporting"] = Agent("reporting", "Reporting", "Reports.", "Report.", output=Typed)
    assert ending_in_words((("data",), ("reporting",)), typed) == (("data",), ("reporting",), ("supervisor",))


names = st.lists(st.sampled_from([*EVERYBODY, "nobody"]), max_size=8)


@given(
    intent=st.sampled_from(Intent),
    sufficiency=st.sampled_from(["sufficient", "partial", "insufficient"]),
    named=names,
    missing=st.frozensets(st.sampled_from(sorted({*SPECIALTIES, "data", "plugged"}))),
)
def test_every_plan_ends_with_one_who_writes_and_asks_nobody_twice(
    intent: Intent, sufficiency: Sufficiency, named: list[str], missing: frozenset[str]
) -> None:
    agents = without(*missing)
    found = route(triaged(intent, *named, sufficiency=sufficiency), agents)
    everybody = [name for stage in found.stages for name in stage]
    assert len(found.stages[-1]) == 1
    assert len(everybody) == len(set(everybody))
    assert set(everybody) <= agents.keys()
    assert "triage" not in everybody
    assert set(found.absent) == set(found.absent) - agents.keys()
    assert set(found.absent) <= {*INTENT_RULES[intent].agents, *INTENT_RULES[intent].optional}
    # Who builds on others comes after all those who do not.
    order = [name for name in everybody if name in {"optimizations", "actions", "reporting", "supervisor"}]
    assert everybody[len(everybody) - len(order) :] == order

"""What people ask for, how sure one must be of it, and who answers: the table that the supervisor plans by."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

DATA: Final = "data"
TRIAGE: Final = "triage"


class Intent(StrEnum):
    """The nine kinds of request."""

    COST_ANALYSIS = "cost_analysis"
    BENCHMARKING = "benchmarking"
    PRICING = "pricing"
    OPTIMIZATION = "optimization"
    CORPUS = "corpus"
    SYNTHETIC = "synthetic"
    REPORTING = "reporting"
    TECHNICAL = "technical"
    GENERAL = "general"

    @property
    def words(self) -> str:
        """The intent in words."""
        return self.value.replace("_", " ")


@dataclass(frozen=True, slots=True)
class IntentRule:
    """`threshold`: below this confidence a question is asked instead. `agents` answer it, in this order.

    `optional` agents belong to it only when triage names them.
    """

    threshold: float
    agents: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


INTENT_RULES: Final[Mapping[Intent, IntentRule]] = MappingProxyType(
    {
        Intent.COST_ANALYSIS: IntentRule(0.85, (DATA,)),
        Intent.BENCHMARKING: IntentRule(0.85, (DATA,)),
        Intent.PRICING: IntentRule(0.70, (DATA,)),
        Intent.OPTIMIZATION: IntentRule(0.85, (DATA, "optimizations", "actions")),
        Intent.CORPUS: IntentRule(0.70, ("corpus_admin",)),
        Intent.SYNTHETIC: IntentRule(0.70, ("synthetic_data",)),
        Intent.REPORTING: IntentRule(0.70, (DATA, "reporting")),
        Intent.TECHNICAL: IntentRule(0.70, optional=(DATA,)),
        Intent.GENERAL: IntentRule(0.50, optional=(DATA,)),
    }
)

SPECIALTIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "optimizations": "computing options with their savings, risk and effort",
        "actions": "an ordered plan of actions",
        "reporting": "reports with charts, as HTML or PDF",
        "corpus_admin": "building and searching knowledge bases",
        "synthetic_data": "generating synthetic workloads",
    }
)
"""What each specialist is for, so that an answer can say what is not available where it is not installed."""

Words = Annotated[str, Field(max_length=500)]
Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=20)]


class Goal(BaseModel):
    """One thing that the person wants to reach or expects."""

    metric: Literal["cost", "latency", "usage", "quality", "errors"] = Field(description="What is to change.")
    change_percent: float | None = Field(
        default=None, description="The change wanted or expected, in percent; negative means less. Null if not said."
    )
    amount_usd: float | None = Field(default=None, description="A limit or saving in US dollars. Null if not said.")


class Entities(BaseModel):
    """What the request names, as far as it names it. Never guessed."""

    models: Names = Field(default=[], description="Language models named, in catalogue spelling such as gpt-4o-mini.")
    assume_model: str = Field(default="", max_length=200, description="The model to assume where the data has none.")
    features: Names = Field(default=[], description="Product features named.")
    files: Names = Field(default=[], description="Dataset file names named.")
    group_by: Names = Field(default=[], description="Dimensions to break down by: model, feature, user, day, hour.")
    start_time: datetime | None = Field(default=None, description="Inclusive start of the time range asked about, UTC.")
    end_time: datetime | None = Field(default=None, description="Exclusive end of the time range asked about, UTC.")
    goals: list[Goal] = Field(default=[], max_length=10, description="Targets, limits and expectations.")


class Triage(BaseModel):
    """What the triage agent finds out about a request."""

    category: Intent = Field(description="The kind of request.")
    confidence: float = Field(ge=0, le=1, description="How sure the category is, from 0 to 1.")
    summary: Words = Field(description="What the person wants, in one sentence.")
    entities: Entities = Entities()
    sufficiency: Literal["sufficient", "partial", "insufficient"] = Field(
        default="insufficient", description="How much of the answer the data allows, as describe_dataset says."
    )
    missing: Names = Field(default=[], description="Columns that the data lacks for this request.")
    next_agents: Names = Field(default=[], description="The agents that should work on it, in order.")
    question: Words = Field(default="", description="One clarifying question, for when the confidence is low.")
    suggestions: list[Words] = Field(default=[], max_length=3, description="What the person could ask next.")


@dataclass(frozen=True, slots=True)
class Route:
    """Who works on a request: `agents` that are there, and `absent` ones that its intent would need."""

    agents: tuple[str, ...]
    absent: tuple[str, ...]


def route(triage: Triage, available: frozenset[str]) -> Route:
    """Return who answers, in order. No agents: there is nothing to measure, only something to say."""
    rule = INTENT_RULES[triage.category]
    wanted = (*rule.agents, *(name for name in rule.optional if name in triage.next_agents))
    return Route(
        agents=tuple(name for name in wanted if name in available),
        absent=tuple(name for name in wanted if name not in available),
    )


def is_confident(triage: Triage) -> bool:
    """True when the request is understood well enough to act on it."""
    return triage.confidence >= INTENT_RULES[triage.category].threshold

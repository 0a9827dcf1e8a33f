"""What people ask for, how sure one must be of it, and who answers: the table that the supervisor plans by."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, Field

TRIAGE: Final = "triage"
DATA: Final = "data"
OPTIMIZATIONS: Final = "optimizations"
ACTIONS: Final = "actions"
REPORTING: Final = "reporting"
CORPUS_ADMIN: Final = "corpus_admin"
SYNTHETIC_DATA: Final = "synthetic_data"


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
    """`threshold`: below this confidence a question is asked instead. `agents` are its own, in the order of their work.

    `optional` agents belong to it only when triage names them. `cache_ttl_s`: how many seconds after it was computed
    an answer may be given again; 0 means never.
    """

    threshold: float
    cache_ttl_s: int
    agents: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


INTENT_RULES: Final[Mapping[Intent, IntentRule]] = MappingProxyType(
    {
        Intent.COST_ANALYSIS: IntentRule(0.85, 1800, (DATA,)),
        Intent.BENCHMARKING: IntentRule(0.85, 3600, (DATA,)),
        Intent.PRICING: IntentRule(0.70, 900, (DATA,)),
        Intent.OPTIMIZATION: IntentRule(0.85, 1800, (DATA, OPTIMIZATIONS, ACTIONS, REPORTING)),
        Intent.CORPUS: IntentRule(0.70, 0, (CORPUS_ADMIN,)),
        Intent.SYNTHETIC: IntentRule(0.70, 0, (SYNTHETIC_DATA,)),
        Intent.REPORTING: IntentRule(0.70, 1800, (DATA, OPTIMIZATIONS, ACTIONS, REPORTING)),
        Intent.TECHNICAL: IntentRule(0.70, 3600, optional=(DATA,)),
        Intent.GENERAL: IntentRule(0.50, 1800, optional=(DATA,)),
    }
)

SPECIALTIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        OPTIMIZATIONS: "computing options with their savings, risk and effort",
        ACTIONS: "an ordered plan of actions",
        REPORTING: "reports with charts, as HTML or PDF",
        CORPUS_ADMIN: "building and searching knowledge bases",
        SYNTHETIC_DATA: "generating synthetic workloads",
    }
)
"""What each specialist is for, so that an answer can say what is not available where it is not installed."""

Sufficiency: TypeAlias = Literal["sufficient", "partial", "insufficient"]
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
    rows: int | None = Field(default=None, description="Rows of a workload to be generated. Null if not said.")
    days: int | None = Field(default=None, description="Days that a workload to be generated covers. Null if not said.")
    seed: int | None = Field(default=None, description="Seed of a workload to be generated. Null if not said.")
    preset: str = Field(
        default="",
        max_length=50,
        description="What a workload is to be like: ecommerce, financial, healthcare, gaming or research.",
    )
    corpus: str = Field(default="", max_length=200, description="The knowledge base named, as the person names it.")
    query: str = Field(default="", max_length=500, description="What to search the knowledge bases for.")
    change_time: datetime | None = Field(
        default=None, description="When something changed whose effect is asked about (before and after it), UTC."
    )


class Triage(BaseModel):
    """What the triage agent finds out about a request."""

    category: Intent = Field(description="The kind of request.")
    confidence: float = Field(ge=0, le=1, description="How sure the category is, from 0 to 1.")
    summary: Words = Field(description="What the person wants, in one sentence.")
    entities: Entities = Entities()
    sufficiency: Sufficiency = Field(
        default="insufficient", description="How much of the answer the data allows, as describe_dataset says."
    )
    missing: Names = Field(default=[], description="Columns that the data lacks for this request.")
    next_agents: Names = Field(default=[], description="The agents that should work on it, in order.")
    question: Words = Field(default="", description="One clarifying question, for when the confidence is low.")
    suggestions: list[Words] = Field(default=[], max_length=3, description="What the person could ask next.")
    standalone: bool = Field(
        default=False, description="True when the message is understood without the earlier ones of its thread."
    )


def is_confident(triage: Triage) -> bool:
    """True when the request is understood well enough to act on it."""
    return triage.confidence >= INTENT_RULES[triage.category].threshold

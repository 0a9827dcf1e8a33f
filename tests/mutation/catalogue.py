"""All mutants, and the few that stand for them in the default test run."""

from functools import cache
from typing import Final

from tests.mutation.access_table import ORIGIN, TOKEN, route_mutants, rpc_mutants
from tests.mutation.emission_table import emission_mutants
from tests.mutation.log_table import LOG_MUTANTS
from tests.mutation.mutants import Mutant
from tests.mutation.ownership_table import ownership_mutants
from tests.mutation.run_table import RUN_MUTANTS

SAMPLE: Final = (
    "agent_service/engine/supervisor.py::_Answering._announce AgentHandoff deleted",
    "SQLite appends without looking at the epoch",
    "a watch looks at the run before it subscribes",
    "SQLite accepts a key again",
    "storage/runs.py::_is runs.c.user_id == user_id lifted",
    "the last events are committed before the end",
    "a socket may be opened by any page",
    "signatures are not looked at",
)
"""One of most kinds, quick ones."""


@cache
def all_mutants() -> tuple[Mutant, ...]:
    """Return them in the order of the tables."""
    return (
        *emission_mutants(),
        *LOG_MUTANTS,
        *RUN_MUTANTS,
        *ownership_mutants(),
        *ORIGIN,
        *TOKEN,
        *rpc_mutants(),
        *route_mutants(),
    )

"""The tables fit the code and leave nothing out, and a sample of them is noticed. `make mutation` runs them all."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.mutation import emission_table, ownership_table
from tests.mutation.catalogue import SAMPLE, all_mutants
from tests.mutation.emissions import emission_sites, emissions_in
from tests.mutation.mutants import ROOT, Edit, Kind, StaleAnchorError
from tests.mutation.ownership import conditions_in, ownership_sites
from tests.mutation.verdicts_main import KNOWN

RUN_TIMEOUT_S = 240


def test_every_edit_fits_the_code() -> None:
    stale: list[str] = []
    for mutant in all_mutants():
        try:
            mutant.sources()
        except StaleAnchorError as error:
            stale.append(f"{mutant.name}: {error}")
    assert stale == []


def test_every_mutant_has_a_name_of_its_own_and_every_kind_has_some() -> None:
    mutants = all_mutants()
    assert [name for name, count in Counter(mutant.name for mutant in mutants).items() if count > 1] == []
    assert {mutant.kind for mutant in mutants} == set(Kind)


def test_every_emission_of_the_product_has_a_test_that_misses_it() -> None:
    assert {site.name for site in emission_sites()} == emission_table.NOTICED_BY.keys()
    by_hand = {site.name for site in emission_sites() if site.edit is None}
    assert by_hand <= emission_table.BY_HAND.keys() <= emission_table.NOTICED_BY.keys()


def test_every_condition_on_a_user_has_a_test_or_a_reason() -> None:
    tested, unseen = ownership_table.NOTICED_BY.keys(), ownership_table.UNSEEN.keys()
    assert not tested & unseen
    assert {site.name for site in ownership_sites()} == tested | unseen


def test_every_test_that_is_named_exists() -> None:
    missing = [
        test
        for test in {test for mutant in all_mutants() for test in mutant.tests}
        if not re.search(rf"\bdef {re.escape(test.partition('::')[2].partition('[')[0])}\(", source_of(test))
    ]
    assert missing == []


def source_of(test: str) -> str:
    return (ROOT / test.partition("::")[0]).read_text("utf-8")


@pytest.mark.parametrize(
    ("scope", "old"),
    [("changed", "not there"), ("changed", "e"), ("no_such_function", "edit"), ("Mutant.no_such_method", "edit")],
)
def test_an_edit_that_does_not_fit_exactly_once_is_stale(scope: str, old: str) -> None:
    edit = Edit("tests/mutation/mutants.py", scope, old, "")
    with pytest.raises(StaleAnchorError):
        edit.applied((ROOT / edit.path).read_text("utf-8"))


def test_an_edit_leaves_what_is_outside_its_scope() -> None:
    source = "def one():\n    return 'ä' == 1\n\n\ndef two():\n    return 'ä' == 1\n"
    assert Edit("x.py", "two", "== 1", "!= 1").applied(source) == source[:-5] + "!= 1\n"


NEW_EMISSIONS = """
class Agent:
    async def work(self):
        await self._emitter.emit("data", AgentThinking("Hm."))
        events = [self._emitter, *others]
        async def later():
            await self.work.emitter.commit("data", AgentProgress(ProgressStage.STEP, "On."))
"""
NEW_CONDITIONS = '''
QUERY = """SELECT 1 FROM runs WHERE id = $1 AND user_id = $2"""
def find(user_id, table):
    """Where user_id = ? is prose."""
    first = select(runs).where(runs.c.id == 1, runs.c.user_id == user_id)
    return first, f"SELECT 1 FROM {table} WHERE {table}.user_id = :user AND user_id = ?", user_id != "ada"
'''


def test_a_new_emission_is_found_wherever_it_stands() -> None:
    found = {site.name: site.edit for site in emissions_in("x.py", NEW_EMISSIONS)}
    assert list(found) == ["x.py::Agent.work AgentThinking", "x.py::Agent.work.later AgentProgress STEP"]
    for edit in found.values():
        assert edit is not None
        assert edit.new == "pass"
        assert edit.old not in edit.applied(NEW_EMISSIONS)


def test_a_new_condition_on_a_user_is_found_in_expressions_and_in_sql() -> None:
    found = {site.name: site.edit for site in conditions_in("x.py", NEW_CONDITIONS)}
    assert list(found) == [
        "x.py::QUERY user_id = $2",
        "x.py::find runs.c.user_id == user_id",
        "x.py::find {table}.user_id = :user",
        "x.py::find user_id = ?",
        'x.py::find user_id != "ada"',
    ]
    for edit in found.values():
        assert edit is not None
        compile(edit.applied(NEW_CONDITIONS), "x.py", "exec")


@pytest.mark.slow
@pytest.mark.timeout(RUN_TIMEOUT_S + 10)
def test_a_sample_is_noticed() -> None:
    shown = output_of("tests.mutation", "--sample")
    assert re.search(rf"^{len(SAMPLE)} mutants in \d+ s: {len(SAMPLE)} killed$", shown, re.MULTILINE), shown


@pytest.mark.slow
@pytest.mark.timeout(RUN_TIMEOUT_S + 10)
def test_only_a_test_that_fails_for_the_mutant_is_a_kill() -> None:
    assert output_of("tests.mutation.verdicts_main").split() == [verdict for verdict, _, _ in KNOWN]


def output_of(module: str, *arguments: str) -> str:
    """Run it in a process of its own: it must not have imported the product."""
    command = [sys.executable, "-m", module, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=RUN_TIMEOUT_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout

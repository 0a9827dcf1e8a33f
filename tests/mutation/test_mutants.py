"""The tables fit the code and leave nothing out, and a sample of them is noticed. `make mutation` runs them all."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.mutation import emission_table, ownership_table
from tests.mutation.catalogue import SAMPLE, all_mutants
from tests.mutation.emissions import emission_sites
from tests.mutation.mutants import ROOT, Edit, Kind, StaleAnchorError
from tests.mutation.ownership import ownership_sites
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

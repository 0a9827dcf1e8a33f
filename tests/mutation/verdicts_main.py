"""Mutants whose verdict is known beforehand; run with `python -m`, it prints what the runner makes of them."""

from typing import Final

from tests.mutation.mutants import Edit, Kind, Mutant
from tests.mutation.runner import Runner, Verdict

HOSTS: Final = "tests/ws_bridge/test_settings.py::test_origins_of_a_local_bridge_include_the_names_of_loopback"
ORIGINS: Final = "ws_bridge/origins.py"

KNOWN: Final = (
    (Verdict.SURVIVED, Edit(ORIGINS, "Origins.answers_to", "host.lower() in self.hosts", "bool(self.hosts)"), HOSTS),
    (Verdict.KILLED, Edit(ORIGINS, "Origins.answers_to", "host.lower() in self.hosts", "False"), HOSTS),
    # It cannot be imported: its test fails, and proves nothing.
    (Verdict.BROKEN, Edit(ORIGINS, "LOOPBACK_HOSTS", "(", "nothing("), HOSTS),
    # Its test never imports it.
    (Verdict.BROKEN, Edit("benchmarks/floor_service.py", "SERVICE", "Floor", "Roof"), HOSTS),
    # Its test is not there.
    (Verdict.BROKEN, Edit(ORIGINS, "Origins.answers_to", "host.lower()", "host"), "tests/ws_bridge/test_parts.py::no"),
    (Verdict.STALE, Edit(ORIGINS, "Origins.answers_to", "no such text", ""), HOSTS),
)

if __name__ == "__main__":
    mutants = [Mutant(str(number), Kind.ORIGIN, (edit,), (test,)) for number, (_, edit, test) in enumerate(KNOWN)]
    verdicts = {result.mutant.name: result.verdict for result in Runner(jobs=2).run(mutants)}
    print(*(verdicts[mutant.name] for mutant in mutants))  # noqa: T201 - what it is run for

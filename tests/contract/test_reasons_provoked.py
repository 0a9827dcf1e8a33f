"""Every error reason, brought about in a running system on every transport that can tell it."""

from collections import Counter

import pytest

from tests.support.cuttable_storage import INTERNALS
from tests.support.face import SECRET
from tests.support.provocations.every import ALL, LATER, cells, never
from tests.support.provocations.registry import Provocation, Told, Transport
from tests.support.reasons import REASONS, Meant
from tests.support.whole_system import open_system

NEVER_SAID = (SECRET, INTERNALS, "hunter2", "Bearer ey", "Traceback", "Error(", "Error:", 'File "')


def code_of(transport: Transport, meant: Meant) -> object:
    """Return the code that the transport has for a reason."""
    match transport:
        case Transport.CALL:
            return meant.code
        case Transport.CLOSE:
            return meant.closes
        case Transport.HTTP:
            return meant.http_status
        case Transport.ITEM | Transport.RUN | Transport.FRAME:
            return None


@pytest.mark.parametrize("provocation", ALL, ids=str)
async def test_a_reason_is_told_as_the_table_says(provocation: Provocation) -> None:
    async with open_system(provocation.setup) as system:
        told = await provocation.provoke(system)
    meant = REASONS[provocation.reason]
    assert told.reason == provocation.reason, told
    assert told.code == code_of(provocation.transport, meant)
    assert told.retryable in {meant.retryable, None}
    assert list(told.violations) == list(provocation.violations)
    check_words(told)
    check_id(provocation.transport, told)
    check_wait(provocation.transport, told, meant)


def check_words(told: Told) -> None:
    """There is a sentence for people, and nothing of ours in it."""
    assert told.message.strip()
    assert [secret for secret in NEVER_SAID if secret in told.everything] == []


def check_id(transport: Transport, told: Told) -> None:
    """A defect has an id, which its text repeats; on the socket, in REST and at a run's end every error has one."""
    if told.reason == "INTERNAL":
        assert told.error_id
        assert told.error_id in told.message
    elif transport in {Transport.CALL, Transport.ITEM}:
        assert not told.error_id
    else:
        assert told.error_id or told.retryable is None


def check_wait(transport: Transport, told: Told, meant: Meant) -> None:
    """Whoever may try again hears when; the service always says it, the bridge where it knows."""
    if not meant.retryable:
        assert not told.retry_after_ms
    elif transport in {Transport.CALL, Transport.ITEM}:
        assert told.retry_after_ms
    else:
        assert told.retry_after_ms is None or told.retry_after_ms > 0


def test_every_reason_is_provoked_wherever_it_can_be_told() -> None:
    provoked = {(provocation.reason, provocation.transport) for provocation in ALL}
    excused = Counter([*LATER, *never()])
    assert [cell for cell in cells() if cell not in provoked and cell not in excused] == []
    assert sorted(provoked & excused.keys()) == [], "what is provoked needs no excuse"
    assert [cell for cell, times in excused.items() if times > 1] == [], "one excuse is enough"
    assert sorted((provoked | excused.keys()) - set(cells())) == []


def test_every_close_code_of_a_reason_is_seen_on_a_real_socket() -> None:
    seen = {REASONS[provocation.reason].closes for provocation in ALL if provocation.transport is Transport.CLOSE}
    assert seen == {meant.closes for meant in REASONS.values()} - {None}

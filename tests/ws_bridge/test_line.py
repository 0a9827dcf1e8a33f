"""The frames that a line makes itself are those of the library that it stands beside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.server import ServerProtocol

from ws_bridge.line import text_frames


def frames_of_the_library(texts: list[bytes]) -> bytes:
    connection = ServerProtocol()
    connection.state = connection.state.OPEN
    for text in texts:
        connection.send_text(text)
    return b"".join(connection.data_to_send())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_a_frame_of_any_size_is_the_librarys(size: int) -> None:
    assert text_frames([b"x" * size]) == frames_of_the_library([b"x" * size])


@given(st.lists(st.text().map(str.encode)))
def test_many_frames_are_the_librarys(texts: list[bytes]) -> None:
    assert text_frames(texts) == frames_of_the_library(texts)

"""Addresses to listen on, and which of them the environment allows."""

import pytest

from configuration.addresses import exposed, is_loopback, split_address
from configuration.environment import Environment


def test_an_address_is_split() -> None:
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("[::1]:65535") == ("::1", 65_535)


@pytest.mark.parametrize("address", ["", "x", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:x"])
def test_an_address_has_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.com:1", False),
    ],
)
@pytest.mark.parametrize("environment", list(Environment))
def test_on_one_machine_only_loopback_is_listened_on(environment: Environment, address: str, *, expected: bool) -> None:
    assert is_loopback(address) is expected
    found = list(exposed(environment, {"http_address": address, "admin_address": ""}))
    where = f"must be a loopback address such as 127.0.0.1 in {environment}"
    text = f"APEX_HTTP_ADDRESS={address!r}: {where}; set APEX_ENVIRONMENT=production to serve a network"
    assert found == ([] if expected or not environment.is_local else [(("environment", "http_address"), text)])

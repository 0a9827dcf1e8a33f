"""Addresses to listen on: `host:port` or `[v6]:port`."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

from configuration.environment import Environment
from configuration.variables import Conflict, variable

MAX_PORT: Final = 65_535


def split_address(address: str) -> tuple[str, int]:
    """Return host and port, the host without brackets. Raises `ValueError` for anything else."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("must be host:port, for example 127.0.0.1:8000")
    return host, int(port)


def _checked(address: str) -> str:
    if address:
        split_address(address)
    return address


Address: TypeAlias = Annotated[str, AfterValidator(_checked)]
"""A field that holds an address, or nothing."""


def is_loopback(address: str) -> bool:
    """Return whether nobody outside this machine can reach the address."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposed(environment: Environment, addresses: Mapping[str, str]) -> Iterator[Conflict]:
    """Yield those of the addresses (field → address, empty for none) that the environment does not allow."""
    for field, address in addresses.items():
        if environment.is_local and address and not is_loopback(address):
            where = f"must be a loopback address such as 127.0.0.1 in {environment}"
            text = f"{variable(field)}={address!r}: {where}; set APEX_ENVIRONMENT=production to serve a network"
            yield ("environment", field), text

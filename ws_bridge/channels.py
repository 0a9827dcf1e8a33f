"""The two gRPC channels to the service: one for the Attach call, one for everything else."""

from typing import Final, TypeAlias

import grpc

KEEPALIVE_MS: Final = 30_000
"""How often an idle connection is probed, in milliseconds. The service permits it a little more often."""
KEEPALIVE_TIMEOUT_MS: Final = 10_000
ATTACH_LOOKAHEAD_BYTES: Final = 1024 * 1024
"""The Attach call carries all sockets, so it may have more under way than a stream of one run."""
CALL_LOOKAHEAD_BYTES: Final = 64 * 1024

Options: TypeAlias = tuple[tuple[str, int], ...]


def attach_channel(target: str) -> grpc.aio.Channel:
    """Return the channel that the Attach call has to itself."""
    return grpc.aio.insecure_channel(target, options=_options(ATTACH_LOOKAHEAD_BYTES))


def call_channel(target: str) -> grpc.aio.Channel:
    """Return the channel for all other calls."""
    return grpc.aio.insecure_channel(target, options=_options(CALL_LOOKAHEAD_BYTES))


def _options(lookahead_bytes: int) -> Options:
    return (
        # Probing the bandwidth makes a stalled stream hold megabytes.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", lookahead_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A service that comes back is found within a second or two.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Without this, channels to the same target share one connection.
        ("grpc.use_local_subchannel_pool", 1),
    )

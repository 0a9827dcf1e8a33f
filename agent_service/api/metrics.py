"""What the gRPC face counts. The registry is the app's own: two apps in one process share nothing."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ApiMetrics:
    """Calls by method and code, their duration, and what is open."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter("apex_grpc_calls", "Finished calls.", ["method", "code"], registry=registry)
        self.seconds = Histogram(
            "apex_grpc_call_seconds", "Duration of calls.", ["method"], registry=registry, buckets=SECONDS_BUCKETS
        )
        self.open_calls = Gauge("apex_grpc_open_calls", "Calls at work.", ["method"], registry=registry)
        self.sessions = Gauge("apex_sessions", "Sessions that are signed in.", registry=registry)
        self.watches = Gauge("apex_watches", "Runs that sessions watch.", registry=registry)
        self.events = Counter("apex_events_delivered", "Events handed to gRPC.", registry=registry)

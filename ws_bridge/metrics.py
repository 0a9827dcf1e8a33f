"""What the bridge counts. The registry is the app's own: two apps in one process share nothing."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class BridgeMetrics:
    """Sockets and frames."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sockets = Gauge("apex_bridge_sockets", "Open sockets.", registry=self.registry)
        self.attached = Gauge("apex_bridge_attached", "1 while the service can be reached.", registry=self.registry)
        self.refused = Counter("apex_bridge_sockets_refused", "Upgrades refused.", ["reason"], registry=self.registry)
        self.closed = Counter("apex_bridge_sockets_closed", "Sockets that we closed.", ["code"], registry=self.registry)
        self.received = Counter("apex_bridge_frames_received", "Frames of clients.", registry=self.registry)
        self.sent = Counter("apex_bridge_frames_sent", "Frames to clients.", registry=self.registry)

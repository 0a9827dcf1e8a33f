"""JSON ↔ proto: the only place of the bridge that knows both forms."""

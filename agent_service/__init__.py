"""The agent service: a gRPC server that runs agents and streams every step as committed events."""

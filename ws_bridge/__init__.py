"""The bridge: browsers' WebSocket JSON and REST on one side, the gRPC contract on the other, and nothing else."""

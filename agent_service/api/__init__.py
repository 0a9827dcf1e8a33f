"""The gRPC face of the service: everything that knows the wire contract."""

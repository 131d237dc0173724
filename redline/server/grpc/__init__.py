"""gRPC: messages to calls of the data plane and back. ``codec`` translates, ``service`` has one method per RPC."""

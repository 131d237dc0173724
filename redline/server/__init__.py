"""Serves engines over HTTP and gRPC (KServe v2 with Triton's extensions); see docs/server.md.

``dataplane`` holds the behaviour and knows no protocol; ``http`` and ``grpc`` only translate. Nothing is imported here, so that
the package needs its extra only where it is used.
"""

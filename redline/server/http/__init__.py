"""HTTP/1.1: bytes to calls of the data plane and back. ``connection`` frames, ``infer`` and ``handlers`` translate."""

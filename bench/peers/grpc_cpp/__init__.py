"""gRPC in C++ as systems under test: two echo servers, and a client that makes load.

``make bench-peers`` builds them, where Debian's packages for it are installed; :mod:`.peer` runs them.
"""

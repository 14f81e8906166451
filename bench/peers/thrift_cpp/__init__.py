"""Apache Thrift in C++ as a system under test: an echo server, and a client that makes load.

``make bench-peers`` builds both, where Debian's packages for it are installed; :mod:`.peer` runs them.
"""

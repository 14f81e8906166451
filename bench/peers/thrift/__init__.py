"""Apache Thrift in Python as a system under test: the IDL, a server with the same models, and a client.

thriftpy2 reads the IDL at run time, so neither a compiler nor generated code is needed. In an echo with 32
connections its Cython protocol was as fast as the C extension of Apache's own ``thrift`` with 64 bytes, and
faster with 64 KiB; a server with a thread for each connection was twice as fast as ``TNonblockingServer``.
"""

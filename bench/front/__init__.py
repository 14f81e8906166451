"""Proof: what a request costs at the front of the server, beside gRPC and bare sockets.

One module for each part; :mod:`..parts` runs them.
"""

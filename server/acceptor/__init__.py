"""Further front ends: processes that accept clients on the server's port, and pass on what they ask for.

:mod:`.proxy` turns bundles into envelopes and replies into slices, without I/O; :mod:`.process` is the
process around it; :mod:`.fleet` is the server's side, which starts them and keeps them alive.
"""

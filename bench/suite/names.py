"""The systems of the side-by-side benchmark by what can take part in which scenario."""

from __future__ import annotations

from typing import Final

from ..systems import FUSED, GRPC, UNFUSED

THREADS: Final = "tensorwire threads"
PROCESSES: Final = "tensorwire processes"
FRONT_ENDS: Final = "tensorwire front ends"
GRPC_CHANNELS: Final = "grpc.aio channels"
GRPC_THREADS: Final = "grpcio threads"
GRPC_CALLBACK: Final = "gRPC C++ callback"
GRPC_ASYNC: Final = "gRPC C++ async"
TRITON: Final = "Triton"
THRIFT: Final = "Thrift Python"
THRIFT_CPP: Final = "Thrift C++"
NULL: Final = "null"

TENSORWIRE: Final = (FUSED, UNFUSED, THREADS, PROCESSES, FRONT_ENDS)
GRPC_PYTHON: Final = (GRPC, GRPC_CHANNELS, GRPC_THREADS)
#: The same manager, models and engines behind each, so that they answer for any model.
SERVING: Final = (*TENSORWIRE, *GRPC_PYTHON)
#: They answer at once with what came: there is no model behind them.
ECHOES: Final = (GRPC_CALLBACK, GRPC_ASYNC, TRITON, THRIFT, THRIFT_CPP)
ALL: Final = (*SERVING, *ECHOES)
#: Enough to decide by, in less time.
QUICK: Final = (FUSED, UNFUSED, GRPC, GRPC_CALLBACK)
#: Each caller is a thread of its own.
BLOCKING: Final = (THREADS, GRPC_THREADS, THRIFT, THRIFT_CPP)

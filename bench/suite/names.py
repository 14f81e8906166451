"""The systems of the side-by-side benchmark, by what can take part in which scenario."""

from __future__ import annotations

from typing import Final

from ..systems import (
    CPP_ASYNC,
    CPP_CALLBACK,
    CPP_CHANNELS,
    FRONT_ENDS,
    FUSED,
    GRPC,
    GRPC_CHANNELS,
    GRPC_THREADS,
    PROCESSES,
    THREADS,
    THRIFT,
    THRIFT_CPP,
    TRITON,
    UNFUSED,
)

TENSORWIRE: Final = (FUSED, UNFUSED, THREADS, PROCESSES, FRONT_ENDS)
GRPC_PYTHON: Final = (GRPC, GRPC_CHANNELS, GRPC_THREADS)
#: The same manager, models and engines behind each, so that they answer for any model.
SERVING: Final = (*TENSORWIRE, *GRPC_PYTHON)
#: They answer at once with what came: there is no model behind them.
ECHOES: Final = (CPP_CALLBACK, CPP_ASYNC, CPP_CHANNELS, THRIFT_CPP)
#: Triton and Thrift in Python have the models behind them as well, with a scheduler of their own.
ALL: Final = (*SERVING, TRITON, THRIFT, *ECHOES)
#: Enough to decide by, in less time.
QUICK: Final = (FUSED, UNFUSED, GRPC, CPP_CALLBACK)

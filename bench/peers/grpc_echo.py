"""``grpc.aio`` alone: ``ModelInfer`` answered at once with the first bytes of its input, and no model."""

from __future__ import annotations

from typing import Any

from ..child import run_loop
from ..models import OUTPUT, SIZED_REPLY
from . import kserve
from .grpc_server import run


def _template() -> kserve.ModelInferResponse:
    response = kserve.new_response("echo", "1")
    response.outputs.add(name=OUTPUT, datatype="FP32", shape=[1, SIZED_REPLY // 4])
    return response


_TEMPLATE = _template()


async def echo(request: kserve.ModelInferRequest, _context: Any) -> kserve.ModelInferResponse:
    """The first :data:`SIZED_REPLY` bytes of the first input."""
    response = type(_TEMPLATE)()
    response.CopyFrom(_TEMPLATE)
    response.raw_output_contents.append(request.raw_input_contents[0][:SIZED_REPLY])
    return response


if __name__ == "__main__":
    run_loop(run(echo, "127.0.0.1:0"))

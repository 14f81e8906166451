"""``inference.thrift``, and how both ends talk: the binary protocol in frames, both in Cython."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.transport import TCyFramedTransportFactory

#: The module with the structs and the service of the IDL.
IDL: Final = cast(Any, thriftpy2).load(
    str(Path(__file__).with_name("inference.thrift")), module_name="tensorwire_bench_inference_thrift"
)


def protocol() -> Any:
    """A new protocol factory."""
    return TCyBinaryProtocolFactory()


def transport() -> Any:
    """A new transport factory."""
    return TCyFramedTransportFactory()

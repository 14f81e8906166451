"""Channel settings that the gRPC server and client share."""

from __future__ import annotations

from typing import Final

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
#: Number of channels of the client.
CHANNELS_VARIABLE: Final = "TENSORWIRE_BENCH_GRPC_CHANNELS"

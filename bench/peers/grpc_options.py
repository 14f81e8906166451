"""Settings that the gRPC servers and clients in Python share."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Final

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


def server_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all servers with a model behind them have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("--bind", default="127.0.0.1:0", help="host:port; port 0 takes a free one")
    parser.add_argument(
        "--executor",
        type=int,
        default=0,
        metavar="N",
        help="batches that may run at the same time; 0 (default): one, where the requests are handled",
    )
    parser.add_argument(
        "--max-batch-bytes",
        type=int,
        default=1 << 23,
        help="input bytes that are copied together into a batch",
    )
    return parser


def server_options(*, share_port: bool = False) -> tuple[tuple[str, int], ...]:
    """Of the RPC server. ``share_port``: other processes listen at the same port."""
    return (*CHANNEL_OPTIONS, ("grpc.so_reuseport", int(share_port)))


def tune_interpreter() -> None:
    """What ``tensorwire serve`` sets for its process, so that neither side has an advantage there."""
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)

"""Where the server's log goes: stderr, in colour on a terminal, one plain line per record elsewhere."""

from __future__ import annotations

import logging
import sys


def set_up_logging() -> None:
    """Send the records of ``tensorwire`` to stderr. Their level is the configuration's business."""
    logger = logging.getLogger("tensorwire")
    logger.propagate = False
    if logger.handlers:
        return
    logger.addHandler(_terminal_handler() if sys.stderr.isatty() else _plain_handler())
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logger.handlers[0])


def _plain_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    handler.setFormatter(formatter)
    return handler


def _terminal_handler() -> logging.Handler:
    from rich.console import Console
    from rich.highlighter import NullHighlighter
    from rich.logging import RichHandler

    handler = RichHandler(
        console=Console(stderr=True),
        show_path=False,
        markup=False,
        log_time_format="%H:%M:%S",
        highlighter=NullHighlighter(),
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler

"""The pump: the only code that touches single messages (receive, validate, group, reply)."""

from .bundle import Bundle, MessageSlice, Slice, whole
from .choice import make_pump, pump_kind
from .interface import ControlMessage, Counters, Drained, Pump, ReplyTemplate
from .python import PythonPump

__all__ = [
    "Bundle",
    "ControlMessage",
    "Counters",
    "Drained",
    "MessageSlice",
    "Pump",
    "PythonPump",
    "ReplyTemplate",
    "Slice",
    "make_pump",
    "pump_kind",
    "whole",
]

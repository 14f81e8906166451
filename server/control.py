"""Control calls: health, status, metadata, and the operator's commands to the manager."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..manager import Manager
from ..manager.config import RouteConfig
from ..manager.handle import ServableHandle
from ..manager.heap import read_memory
from ..manager.in_force import ModelSettings
from ..rpc.errors import InternalError, InvalidArgumentError, RpcError, UnimplementedError
from ..rpc.pump import ControlMessage
from ..rpc.types import ModelMetadata, VersionStatus
from ..rpc.wire.extra import decode_control, encode_body
from ..rpc.wire.message import build_control, build_error
from ..rpc.wire.prefix import Kind
from .runtime import VersionRuntime
from .version import VERSION

if TYPE_CHECKING:
    from .frontend import FrontEnd

_log = logging.getLogger("tensorwire.server")

T = TypeVar("T")


class _Which(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    version: int | None = None
    label: str | None = None


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    model: str | None = None


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    version: int | None = None


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    label: str
    version: int | None = None


class _Route(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    route: RouteConfig | None = None


class _Tuned(msgspec.Struct, forbid_unknown_fields=True):
    model: str


class _Tune(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    values: dict[str, Any] = {}
    reset: tuple[str, ...] = ()


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Control:
    """Answers control calls. Those that only read are answered in the front-end thread, at once; commands,
    which wait for the manager, in a thread of their own, one after the other."""

    def __init__(
        self,
        manager: Manager,
        ready: Callable[[], bool],
        acceptors: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """``acceptors``: says what there is to know about further front ends."""
        self._manager = manager
        self._ready = ready
        self._acceptors = acceptors
        self._started = time.monotonic()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tensorwire-control")
        self._reads: dict[str, Callable[[FrontEnd, dict[str, Any]], Any]] = {
            "health": self._health,
            "status": self._status,
            "metadata": self._metadata,
            "stats": self._stats,
            "models.settings": self._settings,
        }
        self._commands: dict[str, Callable[[dict[str, Any]], None]] = {
            "models.load": self._load,
            "models.unload": self._unload,
            "models.label": self._label,
            "models.route": self._route,
            "models.rescan": self._rescan,
            "models.set": self._tune,
        }

    def handle(self, front_end: FrontEnd, message: ControlMessage) -> None:
        """Answer a call, now or later.

        Raises:
            RpcError: it cannot be done; the front end answers with that.
        """
        call = decode_control(message.body)
        read = self._reads.get(call.method)
        if read is not None:
            body = encode_body(read(front_end, call.params))
            front_end.answer(message.peer, build_control(Kind.CONTROL_REPLY, message.id, body))
            return
        command = self._commands.get(call.method)
        if command is None:
            known = ", ".join(sorted((*self._reads, *self._commands)))
            raise UnimplementedError(f"no control method {call.method!r}; methods: {known}")
        self._executor.submit(self._run, front_end, message, command, call.params)

    def close(self) -> None:
        """End the command thread; commands that have not begun are dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(
        self,
        front_end: FrontEnd,
        message: ControlMessage,
        command: Callable[[dict[str, Any]], None],
        params: dict[str, Any],
    ) -> None:
        try:
            command(params)
            frame = build_control(Kind.CONTROL_REPLY, message.id, encode_body(None))
        except RpcError as error:
            frame = build_error(message.id, 1, error.code, error.message)
        except Exception as error:  # noqa: BLE001 - logged and answered
            _log.exception("control call failed")
            frame = build_error(message.id, 1, InternalError.default_code, f"{type(error).__name__}: {error}")
        front_end.answer(message.peer, frame)

    # ---------------------------------------------------------------- reads

    def _health(self, front_end: FrontEnd, params: dict[str, Any]) -> dict[str, Any]:
        _arguments(params, _Nothing)
        snapshot = self._manager.snapshot
        return {
            "ready": self._ready() and not front_end.draining,
            # For whoever waits for the effect of a command: nothing is on its way at this moment.
            "settled": self._manager.wait_ready(0),
            "draining": front_end.draining,
            "models": sorted(name for name, model in snapshot.models.items() if model.versions),
            "in_flight": front_end.in_flight,
            "uptime": time.monotonic() - self._started,
            "server": f"tensorwire {VERSION}",
            "pump": type(front_end.pump).__name__,
        }

    def _status(self, front_end: FrontEnd, params: dict[str, Any]) -> list[VersionStatus]:
        del front_end
        return self._manager.status(_arguments(params, _Model).model)

    def _metadata(self, front_end: FrontEnd, params: dict[str, Any]) -> ModelMetadata:
        del front_end
        which = _arguments(params, _Which)
        return self._manager.snapshot.resolve(which.model, which.version, which.label).metadata

    def _stats(self, front_end: FrontEnd, params: dict[str, Any]) -> dict[str, Any]:
        """Counters of the pump and of each version, for tests, dashboards and the curious."""
        _arguments(params, _Nothing)
        assert front_end.pump is not None
        used, budget = self._manager.memory()
        process = read_memory()
        return {
            "memory": {"used": used, "budget": budget},
            "process": {} if process is None else process._asdict(),
            "pump": msgspec.structs.asdict(front_end.pump.counters),
            "front_ends": self._acceptors(),
            "versions": [
                {
                    "model": runtime.handle.model,
                    "version": runtime.handle.version,
                    "in_flight": runtime.load.in_flight,
                    "queued_rows": runtime.load.queued_rows,
                    "workers": runtime.worker_count,
                    "worker_kind": runtime.handle.servable.worker_kind,
                    "worker_processes": runtime.worker_processes(),
                    **msgspec.structs.asdict(runtime.counters),
                }
                for runtime in front_end.runtimes()
            ],
        }

    def _settings(self, front_end: FrontEnd, params: dict[str, Any]) -> ModelSettings:
        del front_end
        model = _arguments(params, _Tuned).model
        found = self._manager.settings(model)
        serving = self._manager.snapshot.models.get(model)
        handles = dict[int, ServableHandle]() if serving is None else serving.versions
        workers = {
            number: handle.slot.worker_count
            for number, handle in handles.items()
            if isinstance(handle.slot, VersionRuntime)
        }
        versions = [
            msgspec.structs.replace(line, workers=workers.get(line.version)) for line in found.versions
        ]
        return msgspec.structs.replace(found, versions=tuple(versions))

    # ---------------------------------------------------------------- commands

    def _load(self, params: dict[str, Any]) -> None:
        what = _arguments(params, _Version)
        self._manager.load(what.model, what.version)

    def _unload(self, params: dict[str, Any]) -> None:
        what = _arguments(params, _Version)
        self._manager.unload(what.model, what.version)

    def _label(self, params: dict[str, Any]) -> None:
        what = _arguments(params, _Label)
        self._manager.set_label(what.model, what.label, what.version)

    def _route(self, params: dict[str, Any]) -> None:
        what = _arguments(params, _Route)
        self._manager.set_route(what.model, what.route)

    def _tune(self, params: dict[str, Any]) -> None:
        what = _arguments(params, _Tune)
        self._manager.tune(what.model, what.values, what.reset)

    def _rescan(self, params: dict[str, Any]) -> None:
        _arguments(params, _Nothing)
        self._manager.rescan()


def _arguments(params: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgumentError(f"parameters are not valid: {error}") from None

"""From bundles to replies: what the front-end thread does with requests. No sockets, no threads.

Routes, admits or refuses, asks the schedulers what runs where, has it run, and answers through the pump.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Sequence

from ..manager.handle import ServableHandle
from ..manager.snapshot import Snapshot
from ..rpc.errors import CancelledError, DeadlineExceededError, InternalError, RpcError, UnavailableError
from ..rpc.pump import Bundle, Pump, Slice
from ..rpc.wire.header import Signature
from .admission import Admission
from .batch import Batch, Outcome
from .binding import Binding, describe
from .casualties import Fate, casualties
from .config import ServingConfig
from .desk import Desk
from .express import Express, ExpressWays, single_version
from .fairness import IN_USE, CoreShares
from .runtime import VersionRuntime
from .shares import shares
from .workers import Surroundings

_log = logging.getLogger("tensorwire.server")


class Dispatcher:
    """Owns the runtimes of the versions that serve. Used by the front-end thread only.

    Attributes:
        touched: runtimes for which there may be something to decide.
        draining: new requests are refused.
        overloaded: requests were refused for lack of room; whoever has taken note resets it.
    """

    def __init__(
        self,
        config: ServingConfig,
        snapshot: Callable[[], Snapshot],
        pump: Pump,
        desk: Desk,
    ) -> None:
        self.config = config
        self._snapshot = snapshot
        self._pump = pump
        self._desk = desk
        self._admission = Admission(config)
        self._runtimes: dict[ServableHandle, VersionRuntime] = {}
        self.touched: dict[VersionRuntime, None] = {}
        self.draining = False
        self.overloaded = False
        self._express = ExpressWays()
        self._shares = CoreShares(len(os.sched_getaffinity(0)))

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return self._admission.in_flight

    def runtimes(self) -> list[VersionRuntime]:
        """What is served now (a copy, for other threads too)."""
        return list(self._runtimes.values())

    def apply(self, config: ServingConfig) -> None:
        """Take over limits that have changed."""
        self.config = config
        self._admission.config = config

    # ---------------------------------------------------------------- requests in

    def take(self, bundles: Sequence[Bundle], now: float) -> None:
        """Send what has arrived together to the versions that it asks for, or refuse it."""
        alone = len(bundles) == 1
        # Priorities are the schedulers'; without them, what is ready to run may run in this order.
        in_order = alone or all(bundle.priority == bundles[0].priority for bundle in bundles)
        for bundle in bundles:
            if self.draining:
                refusal = UnavailableError("the server is shutting down")
                self._refuse(Slice(bundle, 0, bundle.requests), refusal)
            elif not (in_order and self._take_express(bundle, alone)):
                self._route(bundle, now)

    def _take_express(self, bundle: Bundle, alone: bool) -> bool:
        snapshot, signature = self._snapshot(), bundle.signature
        express = self._express.get(signature, snapshot)
        if express is None:
            express = self._find_express(signature, snapshot)
        return express.run(bundle, alone, self._pump, self._answer_express) or self._join(express, bundle)

    def _join(self, express: Express, bundle: Bundle) -> bool:
        """Have a bundle wait where it leads, if others are there already: then the version is not going away,
        and nothing has to be looked up. False: nothing was done."""
        runtime, binding = express.runtime, express.binding
        if runtime is None or binding is None or not runtime.load.in_flight or runtime.broken:
            return False
        self._admit_bound(runtime, binding, bundle, 0, bundle.requests, time.monotonic())
        return True

    def _answer_express(self, runtime: VersionRuntime, batch: Batch, outcome: Outcome) -> None:
        runtime.account(batch, outcome)
        self._answer(runtime, batch, outcome)

    def _route(self, bundle: Bundle, now: float) -> None:
        header = bundle.signature.header
        model = self._snapshot().models.get(header.model)
        route = (
            None if model is None or header.version is not None or header.label is not None else model.route
        )
        if route is None:
            self._admit(bundle, 0, bundle.requests, now, 0.0)
            return
        for lo, hi, draw in shares(route, bundle):
            self._admit(bundle, lo, hi, now, draw)
        if route.shadow is not None:
            mirrored = int(bundle.requests * route.shadow_fraction + random.random())
            if mirrored:
                self._admit_to(route.shadow, bundle.mirror(), 0, mirrored, now)

    def _find_express(self, signature: Signature, snapshot: Snapshot) -> Express:
        handle = single_version(snapshot, signature)
        runtime = None if handle is None or handle.closing else self._runtime_of(handle)
        express = Express(signature, snapshot, runtime)
        self._express.put(signature, express)
        return express

    def _admit(self, bundle: Bundle, lo: int, hi: int, now: float, draw: float) -> None:
        header = bundle.signature.header
        # A version can begin to unload between the look-up and the acquisition; the newest snapshot then
        # has another.
        for _ in range(3):
            try:
                handle = self._snapshot().resolve(
                    header.model, header.version, header.label, bundle.routing_key, draw
                )
            except RpcError as error:
                self._refuse(Slice(bundle, lo, hi), error)
                return
            if self._admit_to(handle, bundle, lo, hi, now):
                return
        self._refuse(
            Slice(bundle, lo, hi), UnavailableError(f"model {header.model!r} is being unloaded; try again")
        )

    def _admit_to(self, handle: ServableHandle, bundle: Bundle, lo: int, hi: int, now: float) -> bool:
        """Queue requests for a version, or refuse them. False: the version is being unloaded."""
        if handle.closing and handle not in self._runtimes:
            return False
        runtime = self._runtime_of(handle)
        if runtime.broken:
            self._refuse(Slice(bundle, lo, hi), UnavailableError(f"{handle.title}: {runtime.broken}"))
            return True
        if runtime.idle and not handle.acquire():
            return False
        self._admit_bound(runtime, runtime.bindings.get(bundle.signature), bundle, lo, hi, now)
        if runtime.idle:
            handle.release()
        return True

    def _admit_bound(
        self, runtime: VersionRuntime, binding: Binding, bundle: Bundle, lo: int, hi: int, now: float
    ) -> None:
        if bundle.rows is not None and not binding.batched and binding.error is None:
            # To a model that runs each as a whole, a request is one row, whatever its leading dimension.
            for request in range(lo, hi):
                self._admit_part(runtime, binding, bundle.single(request), 0, 1, now)
        else:
            self._admit_part(runtime, binding, bundle, lo, hi, now)

    def _admit_part(
        self, runtime: VersionRuntime, binding: Binding, bundle: Bundle, lo: int, hi: int, now: float
    ) -> None:
        """Queue those of the requests for which there is room, refuse the others."""
        while lo < hi:
            end, error = lo, binding.error
            if error is None:
                end, error = self._admission.admit(bundle, lo, hi, runtime.load, now)
            if end > lo:
                self._enqueue(runtime, binding, Slice(bundle, lo, end), now)
            lo = end
            if error is not None:
                # The others may have more time, or ask for less.
                lo = hi if binding.error else bundle.deadline_run(end, hi)[0]
                self.overloaded = self.overloaded or binding.error is None
                runtime.counters.rejected += lo - end
                self._refuse(Slice(bundle, end, lo), error)

    def _enqueue(self, runtime: VersionRuntime, binding: Binding, part: Slice, now: float) -> None:
        runtime.active_at = now
        runtime.remember(binding)
        self._admission.enter(part, runtime.load)
        runtime.scheduler.add(part, binding.key, now, together=binding.batched)
        runtime.counters.requests += part.requests
        self.touched[runtime] = None

    def _runtime_of(self, handle: ServableHandle) -> VersionRuntime:
        found = self._runtimes.get(handle)
        return self._add_runtime(handle) if found is None else found

    def _add_runtime(self, handle: ServableHandle) -> VersionRuntime:
        runtime: VersionRuntime
        desk = self._desk

        def finished(worker: int, batch: Batch, outcome: Outcome) -> None:
            desk.completed(runtime, worker, batch, outcome)

        def enlisted() -> None:
            self.touched[runtime] = None

        def lost(worker: int, at_work: Batch | None, reason: str) -> None:
            desk.post(lambda: self.lose(runtime, worker, at_work, reason))

        def broken(reason: str) -> None:
            desk.post(lambda: self._give_up(runtime, reason))

        around = Surroundings(finished, enlisted, lost, desk.post, desk.watch, desk.unwatch)
        runtime = VersionRuntime(handle, around, self.config.inline_budget, broken)
        self._runtimes[handle] = runtime
        handle.slot = runtime
        return runtime

    def reconfigure(self) -> None:
        """Take over settings of live versions that have changed."""
        for runtime in self._runtimes.values():
            if runtime.reconfigure():
                self.touched[runtime] = None

    def retire(self, handle: ServableHandle) -> None:
        """Let go of a version that is not published any more, once its requests are answered."""
        self._express.forget()
        runtime = self._runtimes.get(handle)
        if runtime is not None:
            runtime.retired = True
            self._drop_if_retired(runtime)

    def _drop_if_retired(self, runtime: VersionRuntime) -> None:
        if runtime.retired and runtime.idle:
            self._runtimes.pop(runtime.handle, None)
            runtime.stop()

    def _refuse(self, part: Slice, error: RpcError) -> None:
        if not part.bundle.mirrored:
            self._pump.fail(part, error.code, error.message)

    # ---------------------------------------------------------------- batches

    def dispatch(self) -> None:
        """Carry out what the schedulers decide."""
        # Each once: what runs here must not hold back the messages that arrive meanwhile, and refusals.
        touched, self.touched = self.touched, {}
        for runtime in touched:
            self._decide(runtime)

    def _decide(self, runtime: VersionRuntime) -> None:
        now = time.monotonic()
        scheduler = runtime.scheduler
        scheduler.limit = self._shares.limit(runtime, self._runtimes.values(), now)
        decision = scheduler.decide(now)
        runtime.wake_at = now + IN_USE if scheduler.held_back else decision.wake_at
        for part in decision.expired:
            self._expire(runtime, part)
        for run in decision.runs:
            batch = runtime.batch(runtime.binding_of(run), run.parts, run.rows, now, run.key)
            self._admission.start(run.rows, runtime.load)
            if runtime.runs_inline(run, now):
                self.complete(runtime, run.worker, batch, runtime.run_inline(batch))
            else:
                runtime.submit(run.worker, batch)

    def _expire(self, runtime: VersionRuntime, part: Slice) -> None:
        runtime.counters.expired += part.requests
        self._admission.start(part.rows, runtime.load)
        self._refuse_expired(part)
        self._leave(runtime, part)

    def _refuse_expired(self, part: Slice) -> None:
        waited = time.monotonic() - part.bundle.received
        message = f"the deadline passed after {waited * 1e3:.0f} ms in the queue; the request was not run"
        self._refuse(part, DeadlineExceededError(message))

    def complete(self, runtime: VersionRuntime, worker: int, batch: Batch, outcome: Outcome) -> None:
        """A worker has finished a batch."""
        free_since = runtime.worker_done(worker, batch)
        runtime.account(batch, outcome, free_since)
        if runtime.scheduler.queued_requests:
            # These have not left yet, so the version is not dropped meanwhile.
            if runtime.supervised:
                # A process shall not wait for its next batch until these answers are written.
                self._decide(runtime)
            else:
                self.touched[runtime] = None
        self._answer(runtime, batch, outcome)
        for part in batch.parts:
            self._leave(runtime, part)

    def _answer(self, runtime: VersionRuntime, batch: Batch, outcome: Outcome) -> None:
        for part in outcome.expired:
            self._refuse_expired(part)
        compute_us = int(outcome.compute_seconds * 1e6)
        pump = self._pump
        for result in outcome.results:
            error = result.error
            try:
                template = None if error else runtime.template(batch.binding, result.outputs)
            except RpcError as refusal:
                template, error = None, InternalError(f"the outputs cannot be sent: {refusal.message}")
            row = 0
            for part in result.parts:
                if template is None:
                    assert error is not None
                    runtime.counters.failed += part.requests
                    self._refuse(part, error)
                elif not part.bundle.mirrored:
                    waited = outcome.begun - part.bundle.received
                    runtime.counters.queue_seconds += waited * part.requests
                    pump.reply(part, template, result.outputs, row, int(waited * 1e6), compute_us)
                row += part.rows

    def _leave(self, runtime: VersionRuntime, part: Slice) -> None:
        self._admission.leave(part, runtime.load)
        if runtime.idle:
            runtime.handle.release()
            self._drop_if_retired(runtime)

    # ---------------------------------------------------------------- workers that die

    def lose(self, runtime: VersionRuntime, worker: int, at_work: Batch | None, reason: str) -> None:
        """A worker has died. What it had in hand runs elsewhere; what it was at work on, alone, and once."""
        title = runtime.handle.title
        _log.warning("%s: worker %d %s", title, worker, reason)
        for batch, part, fate in casualties(runtime.worker_lost(worker), at_work, bool(runtime.broken)):
            match fate:
                case Fate.REQUEUE | Fate.AGAIN:
                    self._admission.return_to_queue(part, runtime.load)
                    runtime.queue_again(batch.binding, part, alone=fate is Fate.AGAIN)
                    continue
                case Fate.POISONOUS:
                    _log.error("%s: a request killed two workers: %s", title, describe(part.bundle.signature))
                    runtime.counters.failed += part.requests
                    text = f"{title}: two workers died while they ran this request; the second {reason}"
                    self._refuse(part, InternalError(text))
                case Fate.DROP:
                    self._refuse(part, UnavailableError(f"{title}: its worker {reason}"))
            self._leave(runtime, part)
        self.touched[runtime] = None

    def _give_up(self, runtime: VersionRuntime, reason: str) -> None:
        """No worker of a version stays alive: nothing that waits will be run."""
        runtime.broken = reason
        for part in runtime.scheduler.clear():
            self._admission.start(part.rows, runtime.load)
            self._refuse(part, UnavailableError(f"{runtime.handle.title}: {reason}"))
            self._leave(runtime, part)
        self._desk.broken(runtime.handle, reason)

    def cancel(self, peer: bytes, first_id: int, count: int) -> None:
        """Take requests out of the queues."""
        for runtime in self.runtimes():
            if not runtime.scheduler.queued_requests:
                continue
            for part in runtime.scheduler.cancel(peer, first_id, count):
                runtime.counters.cancelled += part.requests
                self._admission.start(part.rows, runtime.load)
                self._refuse(part, CancelledError("cancelled by the client"))
                self._leave(runtime, part)

    def close(self) -> None:
        """Answer what waits and what still runs with UNAVAILABLE, and end the workers."""
        for runtime in self.runtimes():
            for part in runtime.scheduler.clear():
                self._refuse(part, UnavailableError("the server shut down before the request was run"))
            for batch in runtime.running():
                for part in batch.parts:
                    self._refuse(part, UnavailableError("the server shut down while the request was run"))
            runtime.stop()

    # ---------------------------------------------------------------- time

    def wake_at(self, now: float) -> float | None:
        """When a scheduler wants to be asked again; those whose time has come are touched."""
        earliest: float | None = None
        for runtime in self._runtimes.values():
            if runtime.wake_at is not None:
                if runtime.wake_at <= now:
                    self.touched[runtime] = None
                earliest = runtime.wake_at if earliest is None else min(earliest, runtime.wake_at)
            if runtime.supervised:
                check_at = runtime.check_workers(now)
                if check_at is not None:
                    earliest = check_at if earliest is None else min(earliest, check_at)
        return earliest

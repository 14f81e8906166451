"""The scenarios A to I, as data. What is special to one of them is in the module that bears its name."""

from __future__ import annotations

from typing import Final

from ..environment import cores
from ..load import Job
from ..models import sized
from ..systems import CPP_CALLBACK, FRONT_ENDS, FUSED, GRPC, GRPC_THREADS, THREADS, TRITON, UNFUSED
from .crowd import crowd_sizes
from .models import BUSY, BUSY_PROCESSES, SLOW_SECONDS, SQUEEZENET, SWAPPED, TAIL_WORKERS
from .names import ALL, QUICK, SERVING
from .overload import CALL_SECONDS, GRPC_LIMIT, OverloadCourse
from .real_models import TOKENS, tokens_model
from .results import Axis, ScenarioInfo
from .scenario import Scenario, Situation, category
from .swap import SwapCourse
from .tail import OCCUPANCY, TailCourse
from .workers import WorkersCourse, worker_counts

#: Callers of the scenario about sizes, as on brpc's page.
CALLERS: Final = 50
#: Bytes of a request in the scenarios that do not vary it.
SMALL: Final = 1024
_QUICK_SIZES: Final = (64, 4096, 1 << 20)
_QUICK_CALLERS: Final = (1, 32, 256)
_NO_MODEL: Final = (
    "gRPC C++ and Thrift C++ answer with the first bytes of the request: there is no model and no batching "
    "behind them. Triton runs the same ONNX files in its Python backend. All others have the same manager "
    "and engine, and batch."
)
#: Batches that every server runs at the same time where models compute: tensorwire's default for threads.
_REAL_WORKERS: Final = min(4, cores())
_TAIL_QUICK: Final = (FUSED, UNFUSED, GRPC)


def closed(case: str, concurrency: int) -> Job:
    """So many callers without think time; the times are filled in later."""
    return Job(case=case, concurrency=concurrency, warmup=0.0, duration=0.0)


def size_text(nbytes: int) -> str:
    """Such as ``64 B`` or ``4 MiB``; for powers of two."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= factor:
            return f"{nbytes // factor} {unit}"
    return f"{nbytes} B"


def _length(size: int) -> float:
    """Of a measurement: all callers are to be answered several times."""
    return 1.0 if size < 1 << 20 else 2.0 if size < 1 << 22 else 4.0


def _sizes() -> Scenario:
    sizes = [16 * 4**power for power in range(10)]
    return Scenario(
        info=ScenarioInfo(
            key="A",
            title="throughput against request size",
            question="How many requests a second does one client get through, from tiny to large ones?",
            method=f"Closed loop, {CALLERS} callers in one client process; float32 in, 16 bytes out.",
            axis=Axis(name="request size", unit="bytes"),
            figure="throughput",
            systems=ALL,
            notes=(_NO_MODEL,),
        ),
        situations=tuple(
            Situation(
                size,
                size_text(size),
                closed(sized(size).name, CALLERS),
                quick=size in _QUICK_SIZES,
                length=_length(size),
            )
            for size in sizes
        ),
        quick_systems=QUICK,
    )


def _callers() -> Scenario:
    counts = [2**power for power in range(10)]
    return Scenario(
        info=ScenarioInfo(
            key="B",
            title="throughput against callers",
            question="How does throughput grow with the number of calls in flight?",
            method="Closed loop, requests of 1 KiB, callers in one client process.",
            axis=Axis(name="callers"),
            figure="throughput",
            systems=ALL,
            notes=(_NO_MODEL,),
        ),
        situations=tuple(
            Situation(count, str(count), closed(sized(SMALL).name, count), quick=count in _QUICK_CALLERS)
            for count in counts
        ),
        quick_systems=QUICK,
    )


_TAIL_NOTE: Final = (
    f"Slow requests have another shape, so no batch holds both kinds; each occupies one of {TAIL_WORKERS} "
    f"workers for {SLOW_SECONDS * 1e3:g} ms. Occupancy of the workers by them = rate x share x "
    f"{SLOW_SECONDS * 1e3:g} ms / workers, kept at {OCCUPANCY:.1%} as on brpc's page "
    "(10,000/s x 1 % x 5 ms / 24 workers)."
)


def _tail() -> Scenario:
    return Scenario(
        info=ScenarioInfo(
            key="C",
            title="latency distribution with a long tail",
            question="Do slow requests hold up the quick ones?",
            method=f"Open loop at a fixed rate, some requests take {SLOW_SECONDS * 1e3:g} ms; the latency is "
            "that of the quick ones. The control has no slow ones.",
            axis=category("load"),
            figure="p99",
            systems=SERVING,
            notes=(_TAIL_NOTE,),
        ),
        situations=TailCourse.situations("fixed", 1),
        course=TailCourse,
        models=("tail",),
        executor=TAIL_WORKERS,
        length=5.0,
        extra=1.0,
        quick_systems=_TAIL_QUICK,
    )


def _processes() -> Scenario:
    return Scenario(
        info=ScenarioInfo(
            key="D",
            title="many client processes, one server",
            question="What does one server give when its clients are not the limit?",
            method="Closed loop, 4 callers in each client process, requests of 1 KiB.",
            axis=Axis(name="client processes"),
            figure="throughput",
            systems=(FUSED, UNFUSED, FRONT_ENDS, GRPC, CPP_CALLBACK),
            notes=(
                _NO_MODEL,
                "Clients and server share the machine: with few cores the clients take them from the server.",
            ),
        ),
        situations=tuple(
            Situation(count, str(count), closed(sized(SMALL).name, 4 * count), processes=count)
            for count in crowd_sizes()
        ),
        length=1.5,
    )


def _crowd() -> Scenario:
    return Scenario(
        info=ScenarioInfo(
            key="E",
            title="many clients with a long tail",
            question="Do slow requests of some clients hold up the quick ones of all?",
            method="Open loop, Poisson arrivals at client processes that share the rate; otherwise as C.",
            axis=category("load"),
            figure="p99",
            systems=(FUSED, UNFUSED, GRPC, GRPC_THREADS),
            notes=(_TAIL_NOTE, "brpc's page has 15 ms here; this keeps to C's requests and occupancy."),
        ),
        situations=TailCourse.situations("poisson", min(8, crowd_sizes()[-1])),
        course=TailCourse,
        models=("tail",),
        executor=TAIL_WORKERS,
        length=5.0,
        extra=1.0,
    )


def _real() -> Scenario:
    cases = (
        (0, "image, cheap model", "602,112 B", 1.0),
        (1, "image, SqueezeNet", SQUEEZENET, 4.0),
        (2, "2048 token ids", TOKENS.name, 4.0),
    )
    return Scenario(
        info=ScenarioInfo(
            key="F",
            title="images and tokens on real models",
            question="What is left of the difference when the model computes?",
            method="Closed loop, 8 callers: 1x3x224x224 float32 on a mean with a layer and on SqueezeNet; "
            "int32 token ids on a real model.",
            axis=category("request"),
            figure="throughput",
            systems=(*SERVING, TRITON),
            notes=(
                "SqueezeNet: structure from the onnx package, weights are constants.",
                f"Tokens: {tokens_model()}.",
                f"{_REAL_WORKERS} workers for each model: threads, processes or instances of Triton. Batches "
                "have tensorwire's limit everywhere.",
            ),
        ),
        situations=tuple(
            Situation(x, label, closed(case, 8), length=length) for x, label, case, length in cases
        ),
        models=("squeezenet", "tokens"),
        executor=_REAL_WORKERS,
        workers=_REAL_WORKERS,
    )


def _swap() -> Scenario:
    return Scenario(
        info=ScenarioInfo(
            key="G",
            title="hot version swap under load",
            question="Do callers notice that a model is replaced?",
            method="Open loop, Poisson arrivals; during: a new version of 16 MiB is put into the repository "
            "again and again, and the one before it is taken out of service by the manager.",
            axis=category("phase"),
            figure="p99",
            systems=(FUSED, UNFUSED, THREADS, GRPC, GRPC_THREADS),
            notes=(
                "The gRPC servers have tensorwire's manager behind them, so they swap as well.",
                "Every server has a repository of its own, which changes while its system is measured.",
            ),
        ),
        situations=SwapCourse.situations(SWAPPED),
        course=SwapCourse,
        models=("swapped",),
        length=4.0,
        extra=1.0,
    )


def _overload() -> Scenario:
    return Scenario(
        info=ScenarioInfo(
            key="H",
            title="overload",
            question="What does a server still do when it is asked for more than it can?",
            method=f"Capacity in a closed loop, then Poisson arrivals at 1, 2 and 5 times of it; a call has "
            f"{CALL_SECONDS:g} s. Throughput counts the calls that were answered in time.",
            axis=category("offered load"),
            figure="throughput",
            systems=(FUSED, UNFUSED, GRPC),
            notes=(
                "One worker, which computes for about a millisecond a request.",
                "Blocking clients cannot offer more than they have threads, so they take no part.",
                f"grpc.aio has maximum_concurrent_rpcs={GRPC_LIMIT}, its own means against overload: it "
                "refuses what comes beyond. It does not run calls whose time is over. tensorwire: defaults.",
            ),
        ),
        situations=OverloadCourse.situations(BUSY),
        course=OverloadCourse,
        models=("busy",),
        executor=1,
        grpc_limit=GRPC_LIMIT,
        length=3.0,
        extra=1.0,
    )


def _workers() -> Scenario:
    return Scenario(
        info=ScenarioInfo(
            key="I",
            title="number of workers",
            question="What does an operator gain from more workers?",
            method="Closed loop, 16 callers, a model that computes for about a millisecond; the count is "
            "changed on the live server.",
            axis=Axis(name="workers", scale="linear"),
            figure="throughput",
            systems=(FUSED,),
            notes=("The variants are thread and process workers of the same model.",),
        ),
        situations=tuple(
            Situation(count, str(count), closed(case, 16), variant=variant)
            for variant, case in (("thread", BUSY), ("process", BUSY_PROCESSES))
            for count in worker_counts()
        ),
        course=WorkersCourse,
        models=("busy", "busy-processes"),
        length=2.0,
    )


#: Key -> scenario.
SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.key: scenario
    for scenario in (
        _sizes(),
        _callers(),
        _tail(),
        _processes(),
        _crowd(),
        _real(),
        _swap(),
        _overload(),
        _workers(),
    )
}

"""Too many requests: each has one fate, and what has expired is not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tensorwire.bench.open_loop import Target
from tensorwire.bench.overload import OverloadSettings, counters, expire, generator, measure, write_models
from tensorwire.bench.overload_model import inputs_for, read_diary
from tensorwire.bench.proofs import until
from tensorwire.bench.servers import Server
from tensorwire.client import Client

SHORT = OverloadSettings(seconds=0.4, callers=16)
OVERLOADED = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


def test_every_request_has_one_fate_and_expired_ones_are_not_run(
    start: Callable[[Path], Server], tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    write_models(tmp_path / "models", diary, SHORT)
    server = start(tmp_path / "models")
    with Client(server.address, timeout=20.0) as client:
        with generator(Target(address=server.address, model="waiting", kind="waiting"), tmp_path) as child:
            found = measure(child, SHORT)
        volleys = (found.capacity, found.overload)
        assert set(found.overload.failed) <= OVERLOADED
        assert found.capacity.failed == {}
        assert found.overload.answered
        assert found.overload.refused
        assert until(lambda: counters(client, "waiting")["in_flight"] == 0, 20.0)
        counted = counters(client, "waiting")
        assert counted["requests"] + counted["rejected"] == sum(volley.sent for volley in volleys)
        assert counted["rows"] == counted["requests"] - counted["expired"] - counted["cancelled"]
        ids = read_diary(diary)[:, 0]
        assert len(np.unique(ids)) == len(ids) == counted["rows"]

        fates = expire(client)
        run = set(read_diary(diary)[:, 0].tolist())
        assert "DEADLINE_EXCEEDED" in fates.values()
        assert set(fates.values()) <= OVERLOADED
        assert not run & fates.keys()
        answer = client.predict("waiting", inputs_for(5, 0.0))
        assert answer["y"].tolist() == [[5.0]]

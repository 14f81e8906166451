"""Peers that stall, break off or vanish: others are served meanwhile, and no connection stays open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tensorwire.bench.models import INPUT, OUTPUT
from tensorwire.bench.peers_misbehaving import MODEL, WIDE, PeersSettings, scenarios, warm_up
from tensorwire.bench.proof_models import identity, wide, write_model
from tensorwire.bench.proofs import until, usage
from tensorwire.bench.servers import Server
from tensorwire.client import Client

SHORT = PeersSettings(large=40, small=2000, stay=0.1, halves=12, vanishing=60)


def test_bad_peers_cost_others_nothing(start: Callable[[Path], Server], tmp_path: Path) -> None:
    write_model(tmp_path / "models" / MODEL, identity())
    write_model(tmp_path / "models" / WIDE, wide(), "[batching]\nmax_batch_size = 4\n")
    server = start(tmp_path / "models")
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    with Client(server.address, timeout=20.0) as client:

        def served() -> None:
            np.testing.assert_array_equal(client.predict(MODEL, {INPUT: x})[OUTPUT], x)

        warm_up(server.address)
        served()
        before = usage(server.pid)
        for name, act in scenarios(SHORT, server.address):
            act(served)
            assert until(lambda: usage(server.pid).fds <= before.fds + 2, 20.0), name
            assert until(lambda: client.health().in_flight == 0, 20.0), name
        served()
        assert usage(server.pid).threads <= before.threads + 8

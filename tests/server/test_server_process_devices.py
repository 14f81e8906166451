"""GPUs that the processes of a version share."""

from __future__ import annotations

from tensorwire.server.processes.devices import Devices, environment_of


def test_each_has_as_many_as_the_others() -> None:
    devices = Devices(("0", "1"))
    assert [devices.take() for _ in range(5)] == ["0", "1", "0", "1", "0"]
    # Now one of the second dies, and one that was never there.
    devices.give_back("1")
    devices.give_back(None)
    assert [devices.take() for _ in range(3)] == ["1", "1", "0"]


def test_none_is_what_the_server_sees() -> None:
    assert Devices(()).take() is None
    assert environment_of(None) == {}
    assert environment_of("GPU-1")["CUDA_VISIBLE_DEVICES"] == "GPU-1"

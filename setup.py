"""The one part of the build that setup.cfg cannot say: the compiled modules.

They are optional. Without a C compiler, or without Cython, the installation is complete all the same: plain
Python does the same work, more slowly.
"""

import importlib.util

from setuptools import Extension, setup

PUMP = "rpc/pump"
SHARED = ("wire", "tensors")
PARTS = (
    *SHARED,
    *("libzmq", "signatures", "groups", "framed", "replies", "posting", "readings", "receiver", "exchange"),
)
CALLS = "server/processes"
CALLS_PARTS = ("sending", "receiving")


def compiled(name, source, depends):
    return Extension(
        f"tensorwire.{name}",
        [source],
        depends=depends,
        # Deadlines shall be the same to the last bit as those of the pump in Python, on any processor.
        extra_compile_args=["-O3", "-ffp-contract=off"],
        optional=True,
    )


modules = [
    compiled("rpc.pump.compiled", f"{PUMP}/compiled.pyx", [f"{PUMP}/_{part}.pxi" for part in PARTS]),
    compiled(
        "server.processes.compiled",
        f"{CALLS}/compiled.pyx",
        [f"{PUMP}/_{part}.pxi" for part in SHARED] + [f"{CALLS}/_{part}.pxi" for part in CALLS_PARTS],
    ),
]

if importlib.util.find_spec("Cython"):
    # The C that Cython writes goes where the object files go.
    setup(ext_modules=modules, options={"build_ext": {"cython_c_in_temp": True}})
else:
    setup()

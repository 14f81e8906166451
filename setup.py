"""The one part of the build that setup.cfg cannot say: the compiled pump.

It is optional. Without a C compiler, or without Cython, the installation is complete all the same: the pump
in plain Python does the same work, more slowly.
"""

import importlib.util

from setuptools import Extension, setup

PARTS = ("libzmq", "tensors", "signatures", "groups", "framed", "replies", "receiver", "exchange")

pump = Extension(
    "tensorwire.rpc.pump.compiled",
    ["rpc/pump/compiled.pyx"],
    depends=[f"rpc/pump/_{part}.pxi" for part in PARTS],
    # Deadlines shall be the same to the last bit as those of the pump in Python, on any processor.
    extra_compile_args=["-O3", "-ffp-contract=off"],
    optional=True,
)

if importlib.util.find_spec("Cython"):
    # The C that Cython writes goes where the object files go.
    setup(ext_modules=[pump], options={"build_ext": {"cython_c_in_temp": True}})
else:
    setup()

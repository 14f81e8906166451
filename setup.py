"""The one part of the build that setup.cfg cannot say: the compiled pump, where a C compiler is there.

Without a compiler, or without Cython, the installation is complete all the same: the pump in plain Python
does the same work, more slowly.
"""

from setuptools import Extension, setup

SOURCE = "rpc/pump/compiled.pyx"
PARTS = [f"rpc/pump/_{part}.pxi" for part in ("libzmq", "tensors", "groups", "framed", "replies")]


def extensions():
    """The pump, as C in build/; nothing where Cython is not there."""
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    pump = Extension(
        "tensorwire.rpc.pump.compiled",
        [SOURCE],
        depends=PARTS,
        # Deadlines shall be the same to the last bit as those of the pump in Python, on any processor.
        extra_compile_args=["-O3", "-ffp-contract=off"],
        optional=True,
    )
    return cythonize([pump], build_dir="build/cython", quiet=True)


setup(ext_modules=extensions())

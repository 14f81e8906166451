"""Find files that installed packages carry, without importing the packages.

Importing them would bring in what these examples do not need (silero-vad imports PyTorch), so the lists of
files that pip wrote at installation are read instead.
"""

from __future__ import annotations

from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

#: Distribution and the lowest version that carries the files used here.
REQUIREMENTS = {
    "magika": "1.0.1",
    "rapidocr-onnxruntime": "1.4.0",
    "silero-vad": "6.2.2",
}
#: Only the files are used, never the code: no dependencies, and any Python version will do.
INSTALL = "pip install --no-deps --ignore-requires-python " + " ".join(
    f"'{name}>={version}'" for name, version in REQUIREMENTS.items()
)


class MissingPackageError(Exception):
    """A package with model files is not installed, or is too old or too new to have them."""


def package_file(distribution: str, pattern: str) -> Path:
    """Path of the one file of an installed distribution that matches ``pattern``.

    Args:
        distribution: name on PyPI.
        pattern: as in :mod:`fnmatch`, relative to site-packages; the last match in sorted order wins.

    Raises:
        MissingPackageError: says which package is missing and how to install it.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise MissingPackageError(f"package {distribution} is not installed; run: {INSTALL}") from None
    found = sorted((file for file in files if fnmatch(str(file), pattern)), key=str)
    path = Path(str(found[-1].locate())) if found else None
    if path is None or not path.is_file():
        version = metadata.version(distribution)
        raise MissingPackageError(f"package {distribution} {version} has no file {pattern}; run: {INSTALL}")
    return path

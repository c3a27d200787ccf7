"""Build backend: setuptools, and in the wheel everything below one import name.

In a checkout the folders are the import names: `engine`, `shards`, `control`. On the path of others
such names are not ours to take: PyPI has a `control` of its own, and whichever of the two was
installed last would overwrite the other. So the wheel has them in `fintickstreams/`, unchanged, and
`installed.py` as that package: it puts its directory on the path of our own processes, and of no
others. Editable installations are left to setuptools.
"""

import base64
import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
]

NAME = "fintickstreams"
_INSTALLED = Path(__file__).with_name("installed.py")
_MAIN = f"import sys\n\nimport {NAME}\n\nsys.exit({NAME}.main())\n"
_DATA = re.compile(rf"{NAME}-[^/]+\.data/data/share/{NAME}/")
_META = re.compile(rf"{NAME}-[^/]+\.dist-info/")


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The wheel of setuptools, rearranged."""
    file_name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    rearrange(Path(wheel_directory) / file_name)
    return file_name


def rearrange(wheel: Path) -> None:
    """Move code and SQL below `fintickstreams/`, in place."""
    with zipfile.ZipFile(wheel) as archive:
        files = {new_name(name): archive.read(name) for name in archive.namelist()}
    (record,) = [name for name in files if name.endswith(".dist-info/RECORD")]
    meta = record.removesuffix("RECORD")
    files[f"{meta}top_level.txt"] = f"{NAME}\n".encode()
    files[f"{meta}entry_points.txt"] = f"[console_scripts]\nfts = {NAME}:main\n".encode()
    files[f"{NAME}/__init__.py"] = _INSTALLED.read_bytes()
    files[f"{NAME}/__main__.py"] = (
        f"import sys\n\nimport {NAME}\n\nsys.exit({NAME}.main())\n".encode()
    )
    files[record] = b""
    files[record] = _record(files, record)
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            entry = zipfile.ZipInfo(name)  # of 1980: the same files make the same wheel
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, body)


def new_name(name: str) -> str:
    """Where a file of setuptools' wheel belongs."""
    if _META.match(name):
        return name
    return f"{NAME}/{_DATA.sub('', name)}"


def _record(files: dict[str, bytes], record: str) -> bytes:
    """Name, hash and size of every file; its own line has only the name."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    for name, body in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        lines.writerow((name, "", "") if name == record else (name, f"sha256={digest}", len(body)))
    return out.getvalue().encode()

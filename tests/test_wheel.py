"""The wheel beside PyPI's `control`, which has a package of that name: both work, in any order."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.flow, pytest.mark.whole, pytest.mark.fault("N38"), pytest.mark.timeout(240),
]  # fmt: skip

_SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "control", "engine", "shards",
            "sql", "deploy")  # fmt: skip
_META = "Metadata-Version: 2.1\nName: control\nVersion: 0.10.2\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def run(*command: str | Path, **environment: str) -> str:
    """What it says on standard output; its end must be a good one."""
    inherited = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("FTS_", "PYTHON", "PIP_"))
    }
    done = subprocess.run(
        [str(part) for part in command], env={**inherited, **environment}, cwd="/", check=False,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ours, built as a packager would, and a stand-in for the other one."""
    folder = tmp_path_factory.mktemp("wheels")
    source = folder / "source"
    source.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=without)
        else:
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "-q", "-w", folder, source)  # fmt: skip
    (ours,) = folder.glob("fintickstreams-*.whl")
    other = folder / "control-0.10.2-py3-none-any.whl"
    with zipfile.ZipFile(other, "w") as archive:
        meta = "control-0.10.2.dist-info"
        archive.writestr("control/__init__.py", "NAME = 'python-control'\n")
        archive.writestr("control/cli.py", "raise SystemExit('this is not fts')\n")
        archive.writestr(f"{meta}/METADATA", _META)
        archive.writestr(f"{meta}/WHEEL", _WHEEL)
        names = ("control/__init__.py", "control/cli.py", f"{meta}/METADATA", f"{meta}/WHEEL")
        record = "".join(f"{name},,\n" for name in (*names, f"{meta}/RECORD"))
        archive.writestr(f"{meta}/RECORD", record)
    return {"ours": ours, "other": other}


class Venv:
    """A fresh environment that borrows the dependencies of this one, but not its checkout."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        (packages,) = folder.glob("lib/python*/site-packages")
        # A .pth file there is not read again, so the editable installation stays behind.
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str | Path) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, "-q", *arguments)

    def install(self, *wheels: Path) -> None:
        for wheel in wheels:
            self.pip("install", "--no-deps", "--no-index", "--ignore-installed", wheel)


@pytest.fixture
def top() -> Iterator[Path]:
    """Where also the account of root's private PostgreSQL can walk."""
    folder = Path(tempfile.mkdtemp(prefix="fts-wheel-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_the_wheel_takes_one_name(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["ours"]) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        (record,) = [name for name in names if name.endswith("/RECORD")]
        listed = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"fintickstreams"}
    assert sorted(listed) == sorted(names)
    shipped = {path.name for path in (ROOT / "sql").glob("*.sql")}
    assert {
        name.split("/")[-1] for name in names if name.startswith("fintickstreams/sql/")
    } == shipped


@pytest.mark.parametrize("order", [("ours", "other"), ("other", "ours")])
def test_both_work_whichever_came_first(
    wheels: dict[str, Path], top: Path, order: tuple[str, str]
) -> None:
    venv = Venv(top / "venv")
    venv.install(*(wheels[name] for name in order))
    who = "import control; print(control.NAME)"
    assert run(venv.python, "-c", who) == "python-control\n"
    assert run(venv.python, "-c", f"import fintickstreams; {who}") == "python-control\n"
    assert run(venv.bin / "fts", "version").startswith("fintickstreams ")
    assert run(venv.python, "-m", "fintickstreams", "version").startswith("fintickstreams ")
    if order[0] == "ours":
        demo = run(venv.bin / "fts", "demo", "--for", "2", "--rate", "500", "--symbols", "1",
                   "--json", "--no-redis", "--state-dir", top / "state")  # fmt: skip
        summary = json.loads(demo)
        assert summary["ok"]
        assert summary["stored"] > 0
    venv.pip("uninstall", "-y", "fintickstreams")
    assert run(venv.python, "-c", who) == "python-control\n"

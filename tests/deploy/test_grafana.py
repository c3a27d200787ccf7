"""The dashboards in `deploy/grafana`: as their generator makes them, and about what there is."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import psycopg
import psycopg.conninfo
import pytest
from psycopg import sql

from deploy.grafana.__main__ import BOARDS, FOLDER, files
from deploy.grafana.panels import Panel, PromQl
from engine.servers.postgres import client_program
from engine.start.migrations import migrate
from tests.deploy.boards import sql_queries
from tests.stores import execute, select

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "deploy" / "container"
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
PANELS = [panel for board in BOARDS for panel in board.panels]


def test_files_are_what_the_generator_writes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert found == files(), "python -m deploy.grafana"


def test_queries_ask_for_metrics_that_exist() -> None:
    described = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"fts_[a-z_]+", "".join(files().values())))
    bare = {re.sub(r"_bucket$", "", name) for name in wanted}
    assert len(bare) > 20
    assert {name for name in bare if f"`{name}`" not in described} == set()


@pytest.mark.parametrize("name", files())
def test_no_panel_lies_on_another_or_beyond_the_edge(name: str) -> None:
    places = [panel["gridPos"] for panel in json.loads(files()[name])["panels"]]
    assert all(each["x"] + each["w"] <= 24 for each in places)
    for one, other in combinations(places, 2):
        assert not (covers(one, other, "x", "w") and covers(one, other, "y", "h")), (one, other)


def covers(one: dict[str, int], other: dict[str, int], at: str, size: str) -> bool:
    """Whether two panels share a part of one axis."""
    return one[at] < other[at] + other[size] and other[at] < one[at] + one[size]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_that_is_asked_for_can_be_chosen(board: Any) -> None:
    texts = [query.text for panel in board.panels for query in panel.queries]
    texts += [each.query.text for each in board.variables if hasattr(each.query, "text")]
    asked = set(re.findall(r"\$\{?(?!__)([a-z]+)", "".join(texts)))
    assert asked <= {variable.name for variable in board.variables}
    assert {"venue", "kind"} <= {variable.name for variable in board.variables}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_sql_takes_what_is_chosen_as_text_and_nothing_else(panel: Panel) -> None:
    for query in panel.queries:
        if not isinstance(query, PromQl):
            assert set(re.findall(r"\$\{\w+(.*?)\}", query.text)) <= {":sqlstring"}
            assert set(re.findall(r"\$(\w+)", query.text)) <= {
                "__timeFrom",
                "__timeTo",
                "__interval",
            }


def test_addresses_and_secrets_come_from_the_environment() -> None:
    text = (PROVISIONING / "datasources" / "fintickstreams.yml").read_text(encoding="utf-8")
    for key in ("url", "user", "database", "sslmode", "password"):
        (value,) = re.findall(rf"^ +{key}: (.+)$", text.replace("$FTS_PROMETHEUS_URL", ""), re.M)
        assert re.fullmatch(r"\$FTS_[A-Z_]+", value), key
    assert set(re.findall(r"uid: (\S+)", text)) == set(
        re.findall(r'"value": "(fintickstreams-[a-z]+)"', "".join(files().values()))
    )


# -- the compose file's ------------------------------------------------------------------------


def test_the_compose_file_gives_grafana_both_sources() -> None:
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
    services = compose["services"]
    sources = yaml.safe_load((CONTAINER / "grafana.yml").read_text("utf-8"))["datasources"]
    provisioned = (PROVISIONING / "datasources" / "fintickstreams.yml").read_text("utf-8")
    by_type = {each["type"]: each for each in sources}
    assert {each["type"]: (each["name"], each["uid"]) for each in sources} == {
        each["type"]: (each["name"], each["uid"])
        for each in yaml.safe_load(provisioned)["datasources"]
    }, "dashboards choose them by these"
    ticks, database = by_type["postgres"], services["database"]["environment"]
    assert ticks["url"] == "database:5432"
    assert ticks["user"] == database["POSTGRES_READER"] != database["POSTGRES_USER"]
    assert ticks["jsonData"]["database"] == database["POSTGRES_DB"]
    secret = database["POSTGRES_READER_PASSWORD_FILE"]
    assert ticks["secureJsonData"] == {"password": f"$__file{{{secret}}}"}
    for name in ("database", "grafana"):
        assert Path(secret).name in services[name]["secrets"]
    for name, service in (("database", "postgres"), ("prometheus", "prometheus")):
        assert f"{name}:" in by_type[service]["url"]
        assert set(services[name]["networks"]) & set(services["grafana"]["networks"])


@pytest.mark.whole
def test_the_reader_of_the_compose_file_sees_what_is_made_later_and_changes_nothing(
    make_database: Callable[[str], str], tmp_path: Path
) -> None:
    url, reader = make_database(""), f"a reader {os.getpid()}"
    password = tmp_path / "password"
    password.write_text("it's \\ $x\n")
    with dropped_at_the_end(url, reader):
        for _ in range(2):
            make_reader(url, reader, password)
            migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            become = sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(reader))
            connection.execute(become)
            for _, text in sql_queries():
                connection.execute(text.encode())
            for change in ("DELETE FROM trade", "INSERT INTO trade SELECT * FROM trade"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(change.encode())
        salted = select(url, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", [reader])
        assert salted[0][0].startswith("SCRAM-SHA-256")


def make_reader(url: str, reader: str, password: Path) -> None:
    """As the image of the database does, with a client of ours."""
    program = client_program()
    assert program is not None
    found = psycopg.conninfo.conninfo_to_dict(url)
    subprocess.run(
        ["sh", CONTAINER / "reader.sh"],
        env={
            "PATH": f"{program.parent}:/usr/bin:/bin", "PGHOST": str(found["host"]),
            "POSTGRES_USER": str(found["user"]), "POSTGRES_DB": str(found["dbname"]),
            "POSTGRES_READER": reader, "POSTGRES_READER_PASSWORD_FILE": str(password),
        },
        check=True,
    )  # fmt: skip


@contextmanager
def dropped_at_the_end(url: str, role: str) -> Iterator[None]:
    """The role is, with what it was given; roles are the server's, not the database's."""
    try:
        yield
    finally:
        execute(url, f'DROP OWNED BY "{role}" CASCADE', f'DROP ROLE "{role}"')

"""An engine whose user may store and no more, in a schema that is named: as operators do it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.database.home import in_schema
from engine.start.migrations import migrate
from tests.conftest import Databases
from tests.engine.start.test_rights import as_role, name_of, roles, run_roles
from tests.flow.processes import Fts
from tests.flow.rig import Rig, assert_equation
from tests.stores import execute, select

SCHEMA = "ticks of ours"


@pytest.mark.flow
@pytest.mark.timeout(240)
def test_a_writer_without_rights_to_the_schema_goes_through_a_change_of_it(
    tmp_path: Path,
    make_database: Callable[[str], str],
    timescale: Databases | None,
) -> None:
    """With TimescaleDB its partitions become hypertables meanwhile; without it that is refused."""
    url = make_database("")
    with roles(url):
        execute(
            url,
            f'CREATE ROLE "{name_of("owner")}"',
            f'CREATE SCHEMA "{SCHEMA}" AUTHORIZATION "{name_of("owner")}"',
        )
        owner, writer = (in_schema(as_role(url, who), SCHEMA) for who in ("owner", "writer"))
        migrate(owner)
        run_roles(url, SCHEMA)
        rig = Rig(tmp_path, writer, settings=f'[database]\nschema = "{SCHEMA}"', rate="500")
        try:
            rig.start()
            if timescale is not None:
                execute(url, "CREATE EXTENSION timescaledb")
            moved = Fts("migrate", "--to", "timescaledb", FTS_DATABASE_URL=owner)
            code, output = moved.end()
            assert code == (0 if timescale is not None else 1), output + moved.log
            rig.until_more_rows()
            assert_equation(rig.finish())
        finally:
            rig.close()
        kind = f"SELECT relkind::text FROM pg_class WHERE oid = '\"{SCHEMA}\".trade'::regclass"
        assert select(url, kind) == [("r" if timescale is not None else "p",)]

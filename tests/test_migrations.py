"""The schema: made by the migrations alone, the same as the models, from a checkout and from an installed wheel."""

import subprocess
import sys
import sysconfig
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from etl.db import tables
from etl.db.migrate import downgrade, upgrade
from etl.db.models import SyncRun, VirtualNumber
from etl.db.revision import known_revisions, migrations_folder, needed_revision
from etl.errors import ConfigError, UsageError
from tests.command import CHECKOUT, Ended, environment, run
from tests.databases import Database
from tests.loading import loading
from tests.snapshots import record

VIEWS = {"virtual_numbers_timeline", "redirect_numbers_timeline", "virtual_numbers_ever", "number_redirects"}


def test_there_is_one_head_and_it_is_the_revision_known_by_file_name() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    scripts = ScriptDirectory.from_config(config)

    assert scripts.get_heads() == [needed_revision()]
    assert sorted(revision.revision for revision in scripts.walk_revisions()) == known_revisions()


def objects(database: Database) -> tuple[set[str], set[str]]:
    with database.connect() as connection:
        inspector = inspect(connection)
        return set(inspector.get_table_names()) - {"alembic_version"}, set(inspector.get_view_names())


def test_up_down_and_up_again(database: Database) -> None:
    assert upgrade(database.url) == needed_revision()
    assert objects(database) == (set(tables.metadata.tables), VIEWS)
    assert upgrade(database.url) is None

    assert downgrade(database.url, "base", accept_loss=False) is None
    assert objects(database) == (set(), set())

    assert upgrade(database.url) == needed_revision()
    assert objects(database) == (set(tables.metadata.tables), VIEWS)


def test_the_models_are_what_the_migrations_made(migrated_database: Database) -> None:
    with migrated_database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, tables.metadata)

    assert differences == []


def test_the_orm_reads_what_the_job_wrote(migrated_database: Database) -> None:
    with loading(migrated_database) as loader:
        loader.load([record(1, {8: "74950000008", 7: "74950000007"}), record(2)])
    with migrated_database.connect() as connection, Session(connection) as session:
        numbers = session.scalars(select(VirtualNumber).order_by(VirtualNumber.id)).all()

        assert [(number.id, [redirect.id for redirect in number.redirects]) for number in numbers] == [
            (1, [7, 8]),
            (2, []),
        ]
        assert session.scalars(select(SyncRun.outcome)).all() == ["succeeded"]


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_an_upgrade_that_was_killed_half_way_is_simply_run_again(database: Database, kept: int) -> None:
    upgrade(database.url)
    for view in VIEWS:
        database.execute(f"DROP VIEW {view}")
    order = ["sync_runs", "virtual_numbers", "redirect_numbers", "virtual_numbers_history", "redirect_numbers_history"]
    for table in ["quarantined_records", *reversed(order[kept:])]:
        database.execute(f"DROP TABLE {table}")
    database.execute("DELETE FROM alembic_version")

    assert upgrade(database.url) == needed_revision()
    assert objects(database) == (set(tables.metadata.tables), VIEWS)


def test_three_first_runs_at_once_all_succeed(database: Database, tmp_path: Path) -> None:
    variables = {"ETL_DATABASE_URL": database.url}
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: run("db", "upgrade", cwd=tmp_path, variables=variables), range(3)))

    assert [(result.code, result.stdout.strip()) for result in results] == [(0, needed_revision())] * 3


def test_a_downgrade_that_would_drop_rows_asks_first(migrated_database: Database) -> None:
    with loading(migrated_database) as loader:
        loader.load([record(1, {7: "74950000007"})])

    with pytest.raises(UsageError, match=r"1 of redirect_numbers, 1 of sync_runs, 1 of virtual_numbers\b.*--yes"):
        downgrade(migrated_database.url, "base", accept_loss=False)
    assert migrated_database.scalar("SELECT count(*) FROM virtual_numbers") == 1

    assert downgrade(migrated_database.url, "base", accept_loss=True) is None
    assert objects(migrated_database) == (set(), set())


def test_a_revision_that_does_not_exist_is_refused(migrated_database: Database) -> None:
    with pytest.raises(UsageError, match="no revision nonsense"):
        downgrade(migrated_database.url, "nonsense", accept_loss=True)


def test_a_newer_schema_is_left_alone(migrated_database: Database) -> None:
    migrated_database.execute("UPDATE alembic_version SET version_num = '2099_01_01_later'")

    with pytest.raises(ConfigError, match=r"2099_01_01_later.*newer version"):
        upgrade(migrated_database.url)
    with pytest.raises(ConfigError, match=r"2099_01_01_later.*newer version"):
        downgrade(migrated_database.url, "-1", accept_loss=True)


def test_the_url_comes_from_the_configuration_and_may_hold_a_per_cent_sign(tmp_path: Path) -> None:
    folder = tmp_path / "100%"
    folder.mkdir()
    variables = {"ETL_DATABASE_URL": f"sqlite:///{folder}/numbers.db"}

    assert run("db", "upgrade", cwd=tmp_path, variables=variables).code == 0
    assert run("db", "current", cwd=tmp_path, variables=variables).stdout.strip() == needed_revision()


def test_text_that_others_fold_together_is_kept_apart(migrated_database: Database) -> None:
    comments = ["b", "B", "Ё", "Е", "конец ", "конец", "😀"]
    with loading(migrated_database) as loader:
        loader.load([record(number, comment=comment) for number, comment in enumerate(comments, start=1)])

    assert migrated_database.scalar("SELECT count(DISTINCT comment) FROM virtual_numbers") == len(comments)
    for comment in comments:
        found = migrated_database.scalar("SELECT count(*) FROM virtual_numbers WHERE comment = :it", it=comment)
        assert found == 1, comment


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the built wheel into an environment of its own, with this one's dependencies; return its Python."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)],
        check=True,
        capture_output=True,
    )
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages),
         str(next(folder.glob("*.whl")))],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    return home / "bin" / "python"


def command(python: Path, *arguments: str, cwd: Path, **variables: str) -> Ended:
    # Without PYTHONPATH, and with -P: the checkout must be out of reach.
    clean = {key: value for key, value in environment(variables).items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [python, "-P", "-m", "etl", *arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    return Ended(result.returncode, result.stdout, result.stderr)


def test_a_wheel_brings_its_migrations(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [installed, "-P", "-c", "import etl; print(etl.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(installed.parents[1]) in where

    url = f"sqlite:///{tmp_path}/numbers.db"
    upgraded = command(installed, "db", "upgrade", cwd=tmp_path, ETL_DATABASE_URL=url)
    assert (upgraded.code, upgraded.stdout.strip()) == (0, needed_revision()), upgraded.stderr
    assert command(installed, "db", "check", cwd=tmp_path, ETL_DATABASE_URL=url).code == 0
    assert command(installed, "db", "downgrade", "-1", cwd=tmp_path, ETL_DATABASE_URL=url).code == 0


def test_a_wheel_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    shown = command(installed, "demo", "--numbers", "30", cwd=tmp_path)

    assert shown.code == 0, shown.stderr
    assert "30 added" in shown.stdout
    assert [path.name for path in tmp_path.glob("*.db")] == ["numbers-demo.db"]

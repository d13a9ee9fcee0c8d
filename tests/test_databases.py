from tests.databases import Database


def test_a_database_is_empty_and_usable(database: Database) -> None:
    database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
    database.execute("INSERT INTO thing VALUES (:id)", id=7)
    assert database.rows("SELECT id FROM thing WHERE id > :low", low=1) == [(7,)]
    assert database.scalar("SELECT count(*) FROM thing") == 1
    with database.fresh() as other:
        other.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
        assert other.scalar("SELECT count(*) FROM thing") == 0

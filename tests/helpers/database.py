"""Databases for single tests, on the cluster of TEST_DATABASE_URL."""
import os

from helpers.client import unique_word, wait_until
from helpers.programs import skip_unless_ci
from helpers.settings import MAINTENANCE_DATABASE, TESTS


class Database:
    """A new database. Tests use it to look at and change rows in ways that the API does not allow."""

    def __init__(self, options=""):
        import psycopg

        self.name = f"movies_{unique_word()}"
        self.connect = psycopg.connect
        self.url = psycopg.conninfo.make_conninfo(MAINTENANCE_DATABASE, dbname=self.name)
        self.manage(f"create database {self.name} template template0 {options}")

    def manage(self, statement):
        """Runs a statement on the maintenance database."""
        with self.connect(MAINTENANCE_DATABASE, autocommit=True) as connection:
            connection.execute(statement)

    def run(self, statement, *values):
        """Runs a statement on this database; returns its rows, or None if it returns none."""
        with self.connect(self.url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else None

    def wait_until_session_waits_for_lock(self):
        waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        wait_until(lambda: self.run(waiting), what="session that waits for a lock")

    def disallow_connections(self):
        """Refuses new connections and terminates the open ones."""
        self.manage(f"alter database {self.name} with allow_connections false")
        self.terminate_connections()

    def count_connections(self):
        with self.connect(MAINTENANCE_DATABASE) as connection:
            return connection.execute("select count(*) from pg_stat_activity where datname = %s", [self.name]).fetchone()[0]

    def terminate_connections(self):
        """Terminates all connections; returns when they are gone."""
        self.manage(f"select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{self.name}'")

    def allow_connections(self):
        self.manage(f"alter database {self.name} with allow_connections true")

    def drop(self):
        self.manage(f"drop database if exists {self.name} with (force)")


class DatabaseLink:
    """A folder with a symbolic link to the cluster's socket. Removing the link makes the database unreachable."""

    def __init__(self, database, folder):
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        parameters = conninfo_to_dict(MAINTENANCE_DATABASE)
        name = f".s.PGSQL.{parameters.get('port', 5432)}"
        if not str(parameters.get("host", "")).startswith("/"):
            skip_unless_ci("needs a cluster on a unix socket: ./run.sh test")
        self.database, self.link, self.socket = database, folder / name, os.path.join(parameters["host"], name)
        self.url = make_conninfo(database.url, host=str(folder))
        self.restore()

    def restore(self):
        self.link.symlink_to(self.socket)

    def cut(self):
        self.link.unlink()
        self.database.terminate_connections()


def load_earlier_schema(database):
    """Fills an empty database with the schema, users and movies of the version before V1__initial_schema."""
    import psycopg

    with psycopg.connect(database.url) as connection:
        connection.execute((TESTS / "database/earlier_schema.sql").read_text())

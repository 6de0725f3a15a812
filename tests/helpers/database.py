"""Databases of a test's own on the cluster that the tests run on."""
import os

from helpers.client import word
from helpers.programs import skip_unless_ci
from helpers.settings import MAINTENANCE_DATABASE, ROOT


class Database:
    """A database of a test's own, changed directly where no request can."""

    def __init__(self, options=""):
        import psycopg

        self.name = f"movies_{word()}"
        self.connect = psycopg.connect
        self.url = psycopg.conninfo.make_conninfo(MAINTENANCE_DATABASE, dbname=self.name)
        self.manage(f"create database {self.name} template template0 {options}")

    def manage(self, statement):
        """One statement on the maintenance database."""
        with self.connect(MAINTENANCE_DATABASE, autocommit=True) as connection:
            connection.execute(statement)

    def run(self, statement, *values):
        """One statement on this database; its rows, if it has any."""
        with self.connect(self.url) as connection:
            done = connection.execute(statement, values)
            return done.fetchall() if done.description else None

    def take_away(self):
        """From now on it refuses connections, and those that were open are cut."""
        self.manage(f"alter database {self.name} with allow_connections false")
        self.cut_connections()

    def count_connections(self):
        with self.connect(MAINTENANCE_DATABASE) as connection:
            return connection.execute("select count(*) from pg_stat_activity where datname = %s", [self.name]).fetchone()[0]

    def cut_connections(self):
        """Returns once they are gone."""
        self.manage(f"select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{self.name}'")

    def give_back(self):
        self.manage(f"alter database {self.name} with allow_connections true")

    def drop(self):
        self.manage(f"drop database if exists {self.name} with (force)")


def load_earlier_schema(database):
    """Fills an empty database with the schema, users and movies of the version before V1__initial_schema."""
    import psycopg

    with psycopg.connect(database.url) as connection:
        connection.execute((ROOT / "tests/database/earlier_schema.sql").read_text())


class Link:
    """A way to a database that can be cut: a folder with a link to the cluster's socket."""

    def __init__(self, database, folder):
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        place = conninfo_to_dict(MAINTENANCE_DATABASE)
        name = f".s.PGSQL.{place.get('port', 5432)}"
        if not str(place.get("host", "")).startswith("/"):
            skip_unless_ci("needs a cluster on a unix socket: ./run.sh test")
        self.database, self.link, self.socket = database, folder / name, os.path.join(place["host"], name)
        self.url = make_conninfo(database.url, host=str(folder))
        self.mend()

    def mend(self):
        self.link.symlink_to(self.socket)

    def cut(self):
        self.link.unlink()
        self.database.cut_connections()

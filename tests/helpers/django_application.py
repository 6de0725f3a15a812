"""A Django application with the models that the service replaces, configured by importing this module.

    python -c 'from helpers.django_application import *; create_thousands(); call_command("dumpdata", ...)'

Runs on Django 3.2 to 5.2, in an interpreter of its own, because Django can be configured only once in a process. Environment:
DATABASE (connection parameters of PostgreSQL as JSON; without it SQLite in memory), PASSWORD_OF_USERS, TITLE_LENGTH (default 100),
and USE_TZ=False, with which Django writes times without a zone.
"""
import datetime
import json
import os
import sys
import types

import django
from django.conf import settings

USE_TZ = os.environ.get("USE_TZ") != "False"
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
if "DATABASE" in os.environ:
    parameters = json.loads(os.environ["DATABASE"])
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": parameters["dbname"]}
    database |= {key.upper(): parameters.get(key, "") for key in ("user", "password", "host", "port")}
application = types.ModuleType("movies")
application.__path__ = [os.path.dirname(__file__)]
sys.modules["movies"] = application
settings.configure(
    DATABASES={"default": database},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "movies"],
    USE_TZ=USE_TZ, TIME_ZONE="UTC", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

# What follows is imported only now, since it reads the settings.
from django.apps import apps
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, models


class Movie(models.Model):
    title = models.CharField(max_length=int(os.environ.get("TITLE_LENGTH", "100")))
    genre = models.CharField(max_length=100)
    year = models.IntegerField()
    creator = models.ForeignKey(User, on_delete=models.CASCADE)

    class Meta:
        app_label = "movies"


# dumpdata passes over an application without a module of models.
apps.get_app_config("movies").models_module = application

call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    editor.create_model(Movie)
pbkdf2 = PBKDF2PasswordHasher().encode(os.environ["PASSWORD_OF_USERS"], "saltsaltsalt", 1000)
joined = datetime.datetime(2019, 3, 4, 5, 6, 7, 891011, tzinfo=datetime.timezone.utc if USE_TZ else None)


def user(number, **changes):
    name = f"user{number}"
    fields = {"username": name, "email": f"{name}@example.com", "password": pbkdf2, "date_joined": joined + datetime.timedelta(hours=number)}
    return User(**{**fields, **changes})


def create_thousands():
    """Creates 1,000 users and 9,990 movies. Some names contain characters that COPY's text format escapes."""
    User.objects.bulk_create(
        [user(n) for n in range(1, 993)]
        + [
            user(993, first_name="Tab\tand\\N", last_name="line\nfeed\r"),
            user(994, username="Жанна", email="жанна@пример.example"),
            user(995, is_active=False),
            user(996, password="!unusable"),
            user(997, password="argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdA$a2V5"),
            user(998, password="pbkdf2_sha256$9000000$salt$a2V5"),
            user(999, email=""),
            user(1000, email="", is_superuser=True, is_staff=True),
        ]
    )
    creators = list(User.objects.order_by("id"))
    Movie.objects.bulk_create(
        [
            Movie(title=f"Film {n} \\ \t 'é' 日本" if n % 100 == 0 else f"Film {n}", genre="Drama", year=1900 + n % 120, creator=creators[n % 1000])
            for n in range(10000)
        ]
    )
    # Deletes the rows with the last ids, so that the next ids are not those after the largest one.
    Movie.objects.filter(id__gt=9990).delete()
    deleted_user = user(1001)
    deleted_user.save()
    deleted_user.delete()

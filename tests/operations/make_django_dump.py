"""Prints the dump of a Django application with the models that the service replaces, 1,000 users and 9,990 movies in SQLite.

    python make_django_dump.py [FLAG OF dumpdata...]

`django-3.2.json.gz` beside it was made by Django 3.2.25 on Python 3.9. `helpers/django_application.py` says which environment
variables it reads.
"""
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))
from helpers.django_application import call_command, create_thousands

create_thousands()
call_command("dumpdata", "auth.user", "movies.movie", *sys.argv[1:])

"""External programs that tests run. If one is not installed its tests are skipped; in CI they fail."""
import os
import shutil

import pytest

PATH = os.environ["PATH"] + ":/usr/sbin:/usr/local/bin"


def skip_unless_ci(reason):
    """Skips the test, or fails it if CI=true: CI has to run every test."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def find_program(name, package):
    """Returns the program's path, or skips the test with the name of the Debian package that installs it."""
    return shutil.which(name, path=PATH) or skip_unless_ci(f"needs {name}: 'apt-get install {package}'")

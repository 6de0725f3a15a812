"""Programs that tests run beside the service. Without one its tests are skipped, except in CI, where nothing may be."""
import os
import shutil

import pytest

PATH = os.environ["PATH"] + ":/usr/sbin:/usr/local/bin"


def skip_unless_ci(reason):
    """Skips the test; fails it where CI=true, so that CI never passes without having run it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def find_program(name, package):
    """The program's path."""
    return shutil.which(name, path=PATH) or skip_unless_ci(f"needs {name}: 'apt-get install {package}'")

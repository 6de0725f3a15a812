"""Settings that `./run.sh test` passes in environment variables, and paths in the repository."""
import os
from pathlib import Path

BINARY = os.environ.get("MOVIES_API_BINARY")
MAINTENANCE_DATABASE = os.environ.get("TEST_DATABASE_URL")
HAS_OWN_SERVERS = bool(BINARY and MAINTENANCE_DATABASE)
SECRET_KEY = "a-key-of-the-tests-alone-long-enough-for-hs512-0123456789abcdef-0123"

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
OPERATIONS = ROOT / "OPERATIONS.md"

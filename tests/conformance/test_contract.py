"""The recorded cases, 64 at a time and beside a mixed load, so that requests share database statements."""
import pytest

from helpers.client import Client
from helpers.load import Load
from helpers.recorded_contract import run_recorded_cases

pytestmark = pytest.mark.own_servers


@pytest.mark.parametrize("visibility", ["own", "shared"])
def test_recorded_cases_pass_with_64_simultaneous_clients(start_server, visibility):
    server = start_server(MOVIES_VISIBILITY=visibility)
    user = Client(server.base).new_user()
    with Load(user, clients=16) as load:
        passed, failed = run_recorded_cases(server.base, visibility, clients=64)
    assert failed == "", "\n".join(line for line in server.log if " 503 " in line or "WARN" in line)
    assert passed > 550
    assert (load.failures, load.statuses(), load.lost_writes(user)) == ([], {200, 201}, {})
    user.close()

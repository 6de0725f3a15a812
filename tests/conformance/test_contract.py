"""The recorded cases, 64 at a time beside a mixed load, so that each is answered in batches with others."""
import pytest

from helpers.client import Client
from helpers.load import Load
from helpers.recorded_contract import run_recorded_cases

pytestmark = pytest.mark.own_servers


@pytest.mark.parametrize("visibility", ["own", "shared"])
def test_sixty_four_clients_at_once_are_each_answered_to_the_letter(start_server, visibility):
    server = start_server(MOVIES_VISIBILITY=visibility)
    other = Client(server.base).new_user()
    with Load(other, clients=16) as load:
        passed, failed = run_recorded_cases(server.base, visibility, clients=64)
    assert failed == "", "\n".join(line for line in server.log if " 503 " in line or "WARN" in line)
    assert passed > 400
    assert (load.failures, load.statuses(), load.lost_writes(other)) == ([], {200, 201}, {})
    other.close()

"""Throttling of failed sign-ins per account and address, without effect on other users and addresses."""
import http.client
import json
import math
import re
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import PASSWORD, REGISTER, TOKEN, RawResponse, account_fields, outcome, unique_word, wait_until

NO_ACCOUNT = (401, {"detail": "No active account found with the given credentials"})
WRONG = "Wrong-Passw0rd!x"
PROXY = {"TRUSTED_PROXIES": "127.0.0.0/8"}


def sign_in(client, username, password, client_address=None):
    """Tries to sign in; `client_address` is the X-Forwarded-For header of a proxy."""
    headers = {"X-Forwarded-For": client_address} if client_address else {}
    return client.post(TOKEN, {"username": username, "password": password}, headers=headers)


def sign_in_from(source, base, username, password):
    """Tries to sign in over a socket that is bound to the address `source`."""
    address = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20, source_address=(source, 0))
    try:
        fields = json.dumps({"username": username, "password": password})
        connection.request("POST", TOKEN, fields, {"Content-Type": "application/json"})
        return RawResponse(connection.getresponse())
    finally:
        connection.close()


def fail(client, username, times, **request):
    """Tries wrong passwords, each of which has to be refused with 401."""
    for _ in range(times):
        assert outcome(sign_in(client, username, WRONG, **request)) == NO_ACCOUNT


def assert_throttled(response, max_seconds):
    """Checks a 429 response: Django REST framework's message, with the seconds of Retry-After, at most `max_seconds`."""
    assert response.status_code == 429, response.text
    seconds = int(response.headers["Retry-After"])
    assert 1 <= seconds <= max_seconds
    plural = "" if seconds == 1 else "s"
    assert response.json() == {"detail": f"Request was throttled. Expected available in {seconds} second{plural}."}


def test_sign_in_is_throttled_after_ten_wrong_passwords_by_default(start_server):
    client = start_server().client()
    ann, bob = client.new_user(), client.new_user()
    fail(client, ann.username, 10)
    assert_throttled(sign_in(client, ann.username, WRONG), 60)
    assert_throttled(sign_in(client, ann.username, PASSWORD), 60)
    assert sign_in(client, bob.username, PASSWORD).status_code == 200


def test_throttled_user_can_sign_in_from_another_address(start_server):
    client = start_server().client()
    ann = client.new_user()
    fail(client, ann.username, 10)
    assert_throttled(sign_in(client, ann.username, PASSWORD), 60)
    assert sign_in_from("127.0.0.2", client.base, ann.username, PASSWORD).status_code == 200
    assert_throttled(sign_in(client, ann.username, PASSWORD), 60)


def test_address_is_the_forwarded_one_behind_a_trusted_proxy(start_server):
    client = start_server(**PROXY, LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, ann.username, 1, client_address="192.0.2.7")
    fail(client, ann.username, 1, client_address="198.51.100.9, 192.0.2.7")
    assert_throttled(sign_in(client, ann.username, PASSWORD, "192.0.2.7, 127.0.0.9"), 60)
    assert sign_in(client, ann.username, PASSWORD, "192.0.2.7, 198.51.100.9").status_code == 200
    assert sign_in(client, ann.username, PASSWORD).status_code == 200


def test_ipv6_addresses_are_throttled_by_64_bit_network(start_server):
    client = start_server(**PROXY, LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, ann.username, 1, client_address="2001:db8:0:1::1")
    fail(client, ann.username, 1, client_address="2001:db8:0:1:ffff::2")
    assert_throttled(sign_in(client, ann.username, PASSWORD, "2001:db8:0:1::3"), 60)
    assert sign_in(client, ann.username, PASSWORD, "2001:db8:0:2::1").status_code == 200


def test_forwarded_address_of_untrusted_peer_is_ignored(start_server):
    client = start_server(LOGIN_FAILURES="3").client()
    ann = client.new_user()
    for number in range(3):
        fail(client, ann.username, 1, client_address=f"192.0.2.{number}")
    assert_throttled(sign_in(client, ann.username, PASSWORD, "192.0.2.99"), 60)


def test_user_can_sign_in_after_the_cooldown(start_server):
    client = start_server(LOGIN_FAILURES="10", LOGIN_COOLDOWN="2").client()
    ann = client.new_user()
    started = time.monotonic()
    while (response := sign_in(client, ann.username, WRONG)).status_code == 401:
        assert time.monotonic() - started < 10, "ten failures took longer than the service remembers them"
    throttled = time.monotonic()
    assert_throttled(response, 2)
    responses = []

    def has_signed_in():
        responses.append(sign_in(client, ann.username, PASSWORD))
        return responses[-1].status_code == 200

    wait_until(has_signed_in)
    assert time.monotonic() - throttled <= 2 + 1  # Retry-After, which is rounded up, and the last poll
    assert len(responses) > 1 and {response.status_code for response in responses[:-1]} == {429}
    fail(client, ann.username, 10)  # the successful sign-in reset the count


def test_attempts_during_the_cooldown_do_not_extend_it(start_server):
    client = start_server(LOGIN_FAILURES="1", LOGIN_COOLDOWN="2").client()
    ann = client.new_user()
    fail(client, ann.username, 1)
    failed = time.monotonic()
    wait_until(lambda: sign_in(client, ann.username, WRONG).status_code == 401)
    assert time.monotonic() - failed < 2 + 1


def test_successful_sign_in_resets_the_failures(start_server):
    client = start_server(LOGIN_FAILURES="3").client()
    ann = client.new_user()
    for _ in range(4):
        fail(client, ann.username, 2)
        assert sign_in(client, ann.username, PASSWORD).status_code == 200


def test_unknown_and_inactive_users_are_throttled_like_known_users(start_server, database):
    client = start_server(LOGIN_FAILURES="4").client()
    ann, inactive = client.new_user(), client.new_user()
    database.run("update users set is_active = false where id = %s", inactive.id)
    for username, password in ((ann.username, WRONG), (inactive.username, PASSWORD), (f"ghost{unique_word()}", PASSWORD), ("x" * 5000, PASSWORD)):
        statuses = [sign_in(client, username, password).status_code for _ in range(6)]
        assert statuses == [401] * 4 + [429] * 2, username[:20]


def test_failures_are_counted_by_trimmed_case_sensitive_username(start_server):
    client = start_server(LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, f" {ann.username}", 1)
    fail(client, f"{ann.username}\n", 1)
    assert_throttled(sign_in(client, ann.username, WRONG), 60)
    fail(client, ann.username.upper(), 1)


def test_simultaneous_wrong_passwords_are_limited_too(start_server):
    server = start_server(LOGIN_FAILURES="10")
    ann = server.client().new_user()
    clients = [server.client() for _ in range(40)]
    with ThreadPoolExecutor(len(clients)) as pool:
        responses = list(pool.map(lambda client: sign_in(client, ann.username, WRONG), clients))
    assert sorted(response.status_code for response in responses) == [401] * 10 + [429] * 30


def test_simultaneous_right_passwords_all_sign_in(start_server):
    server = start_server(LOGIN_FAILURES="1")
    ann = server.client().new_user()
    clients = [server.client() for _ in range(30)]
    with ThreadPoolExecutor(len(clients)) as pool:
        responses = list(pool.map(lambda client: sign_in(client, ann.username, PASSWORD), clients))
    assert [response.status_code for response in responses] == [200] * 30


def test_throttled_attempt_hashes_no_password_and_is_counted_as_429(start_server):
    client = start_server(LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, ann.username, 2)
    for password in (WRONG, PASSWORD) * 3:
        assert_throttled(sign_in(client, ann.username, password), 60)
    metrics = client.get("/metrics").text
    hashes = re.search(r"^movies_password_hash_wait_seconds_count (\d+)", metrics, re.MULTILINE)[1]
    assert int(hashes) == 4  # registration, sign-in, and two wrong passwords
    assert re.search(r'^movies_http_requests_total\{route="obtain_token",method="POST",status="429"\} 6$', metrics, re.MULTILINE)


def test_invalid_request_is_not_counted_as_failure(start_server):
    client = start_server(LOGIN_FAILURES="1").client()
    ann = client.new_user()
    for _ in range(3):
        assert client.post(TOKEN, {"username": ann.username}).status_code == 400
    fail(client, ann.username, 1)


def test_zero_disables_the_limit(start_server):
    client = start_server(LOGIN_FAILURES="0").client()
    ann = client.new_user()
    fail(client, ann.username, 40)
    assert sign_in(client, ann.username, PASSWORD).status_code == 200


def test_failures_with_many_usernames_from_one_address_are_limited_if_configured(start_server):
    client = start_server(**PROXY, LOGIN_FAILURES_PER_HOUR="20").client()
    ann = client.new_user()
    for _ in range(20):
        fail(client, f"ghost{unique_word()}", 1, client_address="192.0.2.7")
    for username in (ann.username, f"ghost{unique_word()}"):
        assert_throttled(sign_in(client, username, PASSWORD, "192.0.2.7"), math.ceil(3600 / 20))
    assert sign_in(client, ann.username, PASSWORD, "192.0.2.8").status_code == 200


def test_successful_sign_in_does_not_reset_failures_with_other_usernames(start_server):
    client = start_server(LOGIN_FAILURES_PER_HOUR="4").client()
    ann = client.new_user()
    for _ in range(4):
        fail(client, f"ghost{unique_word()}", 1)
        status = sign_in(client, ann.username, PASSWORD).status_code
    assert status == 429


def test_registrations_from_one_address_are_limited_if_configured(start_server):
    client = start_server(**PROXY, REGISTRATIONS_PER_HOUR="3").client()

    def register(client_address, **changes):
        return client.post(REGISTER, account_fields(**changes), headers={"X-Forwarded-For": client_address})

    for _ in range(4):
        assert register("192.0.2.7", email="none").status_code == 400  # creates no account
    assert [register("192.0.2.7").status_code for _ in range(3)] == [201] * 3
    assert_throttled(register("192.0.2.7"), 3600 // 3)
    assert register("192.0.2.7", email="none").status_code == 400
    assert register("192.0.2.8").status_code == 201


def test_registrations_are_not_limited_by_default(own_server):
    client = own_server.client()
    assert [client.post(REGISTER, account_fields()).status_code for _ in range(30)] == [201] * 30


@pytest.mark.parametrize("operation", ["/api/v1/auth/token/", "/api/v1/auth/register/"])
def test_openapi_describes_the_429_response(own_server, operation):
    description = own_server.client().get("/api/v1/schema/").json()["paths"][operation]["post"]["responses"]["429"]
    assert description["headers"]["Retry-After"]["example"] == "57"
    example = description["content"]["application/json"]["examples"]["throttled"]["value"]
    assert example == {"detail": "Request was throttled. Expected available in 57 seconds."}

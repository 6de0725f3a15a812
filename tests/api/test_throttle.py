"""Guessing passwords: throttled per account and address, so that neither another user nor another address notices."""
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


def sign_in(client, username, password, seen_from=None):
    """One attempt; `seen_from` is whom a proxy in front saw."""
    headers = {"X-Forwarded-For": seen_from} if seen_from else {}
    return client.post(TOKEN, {"username": username, "password": password}, headers=headers)


def sign_in_from(source, base, username, password):
    """One attempt over a socket that is bound to this address."""
    place = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20, source_address=(source, 0))
    try:
        fields = json.dumps({"username": username, "password": password})
        connection.request("POST", TOKEN, fields, {"Content-Type": "application/json"})
        return RawResponse(connection.getresponse())
    finally:
        connection.close()


def fail(client, username, times, **request):
    """Wrong passwords in a row, each refused as such."""
    for _ in range(times):
        assert outcome(sign_in(client, username, WRONG, **request)) == NO_ACCOUNT


def assert_throttled(response, longest):
    """A refusal in the framework's words, whose seconds are those of Retry-After."""
    assert response.status_code == 429, response.text
    seconds = int(response.headers["Retry-After"])
    assert 1 <= seconds <= longest
    plural = "" if seconds == 1 else "s"
    assert response.json() == {"detail": f"Request was throttled. Expected available in {seconds} second{plural}."}


def test_ten_wrong_passwords_in_a_row_are_throttled_by_default(start_server):
    client = start_server().client()
    ann, bob = client.new_user(), client.new_user()
    fail(client, ann.username, 10)
    assert_throttled(sign_in(client, ann.username, WRONG), 60)
    assert_throttled(sign_in(client, ann.username, PASSWORD), 60)
    assert sign_in(client, bob.username, PASSWORD).status_code == 200


def test_the_same_user_signs_in_from_another_address(start_server):
    client = start_server().client()
    ann = client.new_user()
    fail(client, ann.username, 10)
    assert_throttled(sign_in(client, ann.username, PASSWORD), 60)
    assert sign_in_from("127.0.0.2", client.base, ann.username, PASSWORD).status_code == 200
    assert_throttled(sign_in(client, ann.username, PASSWORD), 60)


def test_behind_a_trusted_proxy_the_address_is_the_one_that_it_saw(start_server):
    client = start_server(**PROXY, LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, ann.username, 1, seen_from="192.0.2.7")
    fail(client, ann.username, 1, seen_from="198.51.100.9, 192.0.2.7")
    assert_throttled(sign_in(client, ann.username, PASSWORD, "192.0.2.7, 127.0.0.9"), 60)
    assert sign_in(client, ann.username, PASSWORD, "192.0.2.7, 198.51.100.9").status_code == 200
    assert sign_in(client, ann.username, PASSWORD).status_code == 200


def test_an_address_of_ipv6_is_its_whole_network_of_64_bits(start_server):
    client = start_server(**PROXY, LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, ann.username, 1, seen_from="2001:db8:0:1::1")
    fail(client, ann.username, 1, seen_from="2001:db8:0:1:ffff::2")
    assert_throttled(sign_in(client, ann.username, PASSWORD, "2001:db8:0:1::3"), 60)
    assert sign_in(client, ann.username, PASSWORD, "2001:db8:0:2::1").status_code == 200


def test_whom_a_stranger_says_it_forwards_means_nothing(start_server):
    client = start_server(LOGIN_FAILURES="3").client()
    ann = client.new_user()
    for number in range(3):
        fail(client, ann.username, 1, seen_from=f"192.0.2.{number}")
    assert_throttled(sign_in(client, ann.username, PASSWORD, "192.0.2.99"), 60)


def test_the_owner_gets_in_after_the_wait(start_server):
    client = start_server(LOGIN_FAILURES="10", LOGIN_WAIT="2").client()
    ann = client.new_user()
    started = time.monotonic()
    while (response := sign_in(client, ann.username, WRONG)).status_code == 401:
        assert time.monotonic() - started < 10, "ten failures took longer than they are remembered"
    throttled = time.monotonic()
    assert_throttled(response, 2)
    responses = []

    def is_in():
        responses.append(sign_in(client, ann.username, PASSWORD))
        return responses[-1].status_code == 200

    wait_until(is_in)
    assert time.monotonic() - throttled <= 2 + 1  # what Retry-After said, rounded up, and the last poll
    assert len(responses) > 1 and {response.status_code for response in responses[:-1]} == {429}
    fail(client, ann.username, 10)  # to sign in forgave them all


def test_trying_during_the_wait_does_not_make_it_longer(start_server):
    client = start_server(LOGIN_FAILURES="1", LOGIN_WAIT="2").client()
    ann = client.new_user()
    fail(client, ann.username, 1)
    failed = time.monotonic()
    wait_until(lambda: sign_in(client, ann.username, WRONG).status_code == 401)
    assert time.monotonic() - failed < 2 + 1


def test_who_signs_in_in_between_begins_anew(start_server):
    client = start_server(LOGIN_FAILURES="3").client()
    ann = client.new_user()
    for _ in range(4):
        fail(client, ann.username, 2)
        assert sign_in(client, ann.username, PASSWORD).status_code == 200


def test_unknown_and_inactive_users_are_throttled_as_known_ones(start_server, database):
    client = start_server(LOGIN_FAILURES="4").client()
    ann, gone = client.new_user(), client.new_user()
    database.run("update users set is_active = false where id = %s", gone.id)
    for username, password in ((ann.username, WRONG), (gone.username, PASSWORD), (f"ghost{unique_word()}", PASSWORD), ("x" * 5000, PASSWORD)):
        statuses = [sign_in(client, username, password).status_code for _ in range(6)]
        assert statuses == [401] * 4 + [429] * 2, username[:20]


def test_the_name_counts_as_it_is_looked_up(start_server):
    client = start_server(LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, f" {ann.username}", 1)
    fail(client, f"{ann.username}\n", 1)
    assert_throttled(sign_in(client, ann.username, WRONG), 60)
    fail(client, ann.username.upper(), 1)


def test_of_guesses_sent_at_once_no_more_are_answered_than_allowed(start_server):
    server = start_server(LOGIN_FAILURES="10")
    ann = server.client().new_user()
    clients = [server.client() for _ in range(40)]
    with ThreadPoolExecutor(len(clients)) as pool:
        responses = list(pool.map(lambda client: sign_in(client, ann.username, WRONG), clients))
    assert sorted(response.status_code for response in responses) == [401] * 10 + [429] * 30


def test_right_passwords_sent_at_once_are_all_let_in(start_server):
    server = start_server(LOGIN_FAILURES="1")
    ann = server.client().new_user()
    clients = [server.client() for _ in range(30)]
    with ThreadPoolExecutor(len(clients)) as pool:
        responses = list(pool.map(lambda client: sign_in(client, ann.username, PASSWORD), clients))
    assert [response.status_code for response in responses] == [200] * 30


def test_a_throttled_attempt_costs_no_hash_and_is_counted_by_its_status(start_server):
    client = start_server(LOGIN_FAILURES="2").client()
    ann = client.new_user()
    fail(client, ann.username, 2)
    for password in (WRONG, PASSWORD) * 3:
        assert_throttled(sign_in(client, ann.username, password), 60)
    shown = client.get("/metrics").text
    hashes = re.search(r"^movies_password_hash_wait_seconds_count (\d+)", shown, re.MULTILINE)[1]
    assert int(hashes) == 4  # to register, to sign in, and two that were wrong
    assert re.search(r'^movies_http_requests_total\{route="obtain_token",method="POST",status="429"\} 6$', shown, re.MULTILINE)


def test_a_refused_form_is_no_guess(start_server):
    client = start_server(LOGIN_FAILURES="1").client()
    ann = client.new_user()
    for _ in range(3):
        assert client.post(TOKEN, {"username": ann.username}).status_code == 400
    fail(client, ann.username, 1)


def test_zero_is_no_bound(start_server):
    client = start_server(LOGIN_FAILURES="0").client()
    ann = client.new_user()
    fail(client, ann.username, 40)
    assert sign_in(client, ann.username, PASSWORD).status_code == 200


def test_many_names_from_one_address_are_throttled_where_the_setting_says_so(start_server):
    client = start_server(**PROXY, LOGIN_FAILURES_PER_HOUR="20").client()
    ann = client.new_user()
    for _ in range(20):
        fail(client, f"ghost{unique_word()}", 1, seen_from="192.0.2.7")
    for username in (ann.username, f"ghost{unique_word()}"):
        assert_throttled(sign_in(client, username, PASSWORD, "192.0.2.7"), math.ceil(3600 / 20))
    assert sign_in(client, ann.username, PASSWORD, "192.0.2.8").status_code == 200


def test_to_sign_in_does_not_forgive_an_address_its_failures_with_other_names(start_server):
    client = start_server(LOGIN_FAILURES_PER_HOUR="4").client()
    ann = client.new_user()
    for _ in range(4):
        fail(client, f"ghost{unique_word()}", 1)
        status = sign_in(client, ann.username, PASSWORD).status_code
    assert status == 429


def test_registrations_from_one_address_are_bounded_where_the_setting_says_so(start_server):
    client = start_server(**PROXY, REGISTRATIONS_PER_HOUR="3").client()

    def register(seen_from, **changes):
        return client.post(REGISTER, account_fields(**changes), headers={"X-Forwarded-For": seen_from})

    for _ in range(4):
        assert register("192.0.2.7", email="none").status_code == 400  # makes no account
    assert [register("192.0.2.7").status_code for _ in range(3)] == [201] * 3
    assert_throttled(register("192.0.2.7"), 3600 // 3)
    assert register("192.0.2.7", email="none").status_code == 400
    assert register("192.0.2.8").status_code == 201


def test_by_default_registrations_are_not_bounded(own_server):
    client = own_server.client()
    assert [client.post(REGISTER, account_fields()).status_code for _ in range(30)] == [201] * 30


@pytest.mark.parametrize("operation", ["/api/v1/auth/token/", "/api/v1/auth/register/"])
def test_the_description_tells_the_refusal(own_server, operation):
    described = own_server.client().get("/api/v1/schema/").json()["paths"][operation]["post"]["responses"]["429"]
    assert described["headers"]["Retry-After"]["example"] == "57"
    example = described["content"]["application/json"]["examples"]["throttled"]["value"]
    assert example == {"detail": "Request was throttled. Expected available in 57 seconds."}

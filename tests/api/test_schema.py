"""The description of the API: valid OpenAPI 3.1, complete, and its examples are what the service answers."""
import pytest

from helpers.client import MOVIES, REFRESH, REGISTER, TOKEN, account_fields, movie_fields, send_bytes

SCHEMA = "/api/v1/schema/"
MOVIE = "/api/v1/movies/{id}/"
HANDLERS = {
    ("/api/v1/auth/register/", "post"): "register",
    ("/api/v1/auth/token/", "post"): "obtain_token",
    ("/api/v1/auth/refresh/", "post"): "refresh_token",
    ("/api/v1/auth/token/refresh/", "post"): "refresh_token_alias",
    (MOVIES, "get"): "list_movies",
    (MOVIES, "post"): "create_movie",
    (MOVIE, "get"): "read_movie",
    (MOVIE, "put"): "replace_movie",
    (MOVIE, "patch"): "update_movie",
    (MOVIE, "delete"): "delete_movie",
}


@pytest.fixture
def schema(own_server):
    return own_server.client().get(SCHEMA).json()


def check_answer(schema, path, method, response):
    """The status is described, its body is one of the examples, and its headers are told."""
    described = schema["paths"][path][method]["responses"][str(response.status_code)]
    examples = described["content"]["application/json"]["examples"].values()
    assert response.json() in [example["value"] for example in examples]
    for name, header in described["headers"].items():
        if "example" in header:
            assert response.headers[name] == header["example"]


def test_every_operation_is_described_under_its_handler_s_name(schema):
    assert schema["openapi"].startswith("3.1.")
    described = {(path, method): operation["operationId"] for path, methods in schema["paths"].items() for method, operation in methods.items()}
    assert described == HANDLERS
    guarded = {path for path, methods in schema["paths"].items() for operation in methods.values() if operation.get("security") == [{"bearer": []}]}
    assert guarded == {MOVIES, MOVIE}


def test_the_description_is_valid(schema):
    import openapi_spec_validator

    openapi_spec_validator.validate(schema)


def test_successes_have_the_shape_that_is_described(schema, own_server):
    ann = own_server.client().new_user()
    registered = own_server.client().post(REGISTER, account_fields()).json()
    tokens = own_server.client().post(TOKEN, {"username": ann.username, "password": ann.password}).json()
    refreshed = own_server.client().post(REFRESH, {"refresh": ann.refresh}).json()
    movie = ann.add_movie()
    page = ann.get(MOVIES).json()
    shapes = schema["components"]["schemas"]
    for name, response in {"RegisteredUser": registered, "TokenPair": tokens, "AccessToken": refreshed, "Movie": movie, "Page": page}.items():
        assert set(response) == set(shapes[name]["properties"]) == set(shapes[name]["required"]), name


@pytest.mark.parametrize("path, method", HANDLERS)
def test_refusals_of_every_operation_are_the_examples(schema, own_server, path, method):
    ann, bob = own_server.client().new_user(), own_server.client().new_user()
    nobody = own_server.client()
    where = path.replace("{id}", str(ann.add_movie()["id"]))
    operation = schema["paths"][path][method]
    takes_body = "requestBody" in operation

    def check(response, status):
        assert response.status_code == status
        check_answer(schema, path, method, response)

    check(ann.send("BREW", where), 405)
    check(ann.send(method.upper(), where, headers={"Host": "a b"}), 400)
    if takes_body:
        check(ann.send(method.upper(), where, raw="x", headers={"Content-Type": "text/plain"}), 415)
        check(ann.send(method.upper(), where, json_body=[]), 400)
        check(ann.send(method.upper(), where, raw="x", headers={"Content-Type": "application/json"}), 400)
        wrong = {"year": "x"} if method == "patch" else {}
        check(ann.send(method.upper(), where, json_body=wrong), 400)
    if path in (MOVIES, MOVIE):
        check(nobody.send(method.upper(), where), 401)
    if path in (MOVIES, MOVIE, REGISTER):
        check(nobody.send(method.upper(), where, headers={"Authorization": "Bearer a b"}), 401)
        check(nobody.with_token("garbage").send(method.upper(), where), 401)
    if path == MOVIE:
        given = {"json_body": movie_fields()} if takes_body else {}
        check(ann.send(method.upper(), f"{MOVIES}0/", **given), 404)
        check(bob.send(method.upper(), where, **given), 403)
    if path == MOVIES and method == "get":
        check(ann.get(f"{MOVIES}?page=0"), 404)
        check(ann.get(f"{MOVIES}?year=x"), 400)
    if path == TOKEN:
        check(nobody.post(TOKEN, {"username": "nobody", "password": "wrong"}), 401)
    if "refresh" in path:
        check(nobody.post(path, {"refresh": "garbage"}), 401)


def test_while_the_database_is_away_the_refusal_is_the_example(start_server, database):
    client = start_server().client()
    ann = client.new_user()
    schema = client.get(SCHEMA).json()
    database.disallow_connections()
    check_answer(schema, MOVIES, "get", ann.get(MOVIES))
    assert client.get(SCHEMA).json() == schema
    database.allow_connections()


def bodies(schema):
    """Each operation that takes a body, with the shape of that body."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/")[-1]
                yield path, method, schema["components"]["schemas"][name]


def test_what_is_required_is_what_is_missed(schema, own_server):
    ann = own_server.client().new_user()
    movie = str(ann.add_movie()["id"])
    for path, method, shape in bodies(schema):
        response = ann.send(method.upper(), path.replace("{id}", movie), json_body={})
        missed = [] if response.status_code == 200 else list(response.json())
        assert missed == shape.get("required", []), (path, method)


def test_the_longest_text_that_is_described_is_the_longest_that_is_taken(schema, own_server):
    ann = own_server.client().new_user()
    movie = str(ann.add_movie()["id"])
    seen = 0
    for path, method, shape in bodies(schema):
        for field, described in shape["properties"].items():
            longest = described.get("maxLength")
            for length in (longest, longest + 1) if longest else ():
                response = ann.send(method.upper(), path.replace("{id}", movie), json_body={field: "a" * length})
                told = [] if response.status_code == 200 else response.json().get(field, [])
                is_too_long = f"Ensure this field has no more than {longest} characters." in told
                assert is_too_long == (length > longest), (path, method, field, length)
                seen += 1
    assert seen == 2 * (4 + 3 * 2)


OF_THE_SERVER = {
    400: b"GET / HTTP/1.1\r\n\r\n",
    413: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n",
    414: b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 8192),
    417: b"GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
    431: b"GET / HTTP/1.1\r\nHost: a\r\nA: %s\r\n\r\n" % (b"a" * 16384),
    505: b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("status", OF_THE_SERVER)
def test_the_server_s_own_refusals_are_the_examples_of_every_operation(schema, own_server, status):
    response = send_bytes(own_server.base, OF_THE_SERVER[status])
    assert response.status_code == status
    for path, method in HANDLERS:
        described = schema["paths"][path][method]["responses"][str(status)]
        examples = described["content"]["application/json"]["examples"].values()
        assert response.json() in [example["value"] for example in examples]

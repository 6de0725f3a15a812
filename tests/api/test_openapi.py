"""The OpenAPI description: valid OpenAPI 3.1, complete, and in agreement with the service's responses."""
import pytest

from helpers.client import ACCOUNT, MOVIES, REFRESH, REGISTER, TOKEN, account_fields, movie_fields, send_bytes

SCHEMA = "/api/v1/schema/"
MOVIE = "/api/v1/movies/{id}/"
HANDLERS = {
    ("/api/v1/auth/register/", "post"): "register",
    ("/api/v1/auth/token/", "post"): "obtain_token",
    ("/api/v1/auth/refresh/", "post"): "refresh_token",
    ("/api/v1/auth/token/refresh/", "post"): "refresh_token_alias",
    ("/api/v1/auth/token/verify/", "post"): "verify_token",
    ("/api/v1/auth/token/blacklist/", "post"): "blacklist_token",
    (ACCOUNT, "get"): "read_account",
    (ACCOUNT, "put"): "replace_account",
    (ACCOUNT, "patch"): "update_account",
    (ACCOUNT, "delete"): "delete_account",
    ("/api/v1/auth/password/", "post"): "change_password",
    (MOVIES, "get"): "list_movies",
    (MOVIES, "post"): "create_movie",
    (MOVIE, "get"): "read_movie",
    (MOVIE, "put"): "replace_movie",
    (MOVIE, "patch"): "update_movie",
    (MOVIE, "delete"): "delete_movie",
}

PROTECTED = {MOVIES, MOVIE, ACCOUNT, "/api/v1/auth/password/"}


@pytest.fixture
def schema(own_server):
    return own_server.client().get(SCHEMA).json()


def check_response_is_described(schema, path, method, response):
    """Checks that the status is described, that the body is one of the examples, and the headers with examples."""
    description = schema["paths"][path][method]["responses"][str(response.status_code)]
    examples = description["content"]["application/json"]["examples"].values()
    assert response.json() in [example["value"] for example in examples]
    for name, header in description["headers"].items():
        if "example" in header:
            assert response.headers[name] == header["example"]


def test_every_operation_is_described_with_the_name_of_its_handler(schema):
    assert schema["openapi"].startswith("3.1.")
    operation_ids = {(path, method): operation["operationId"] for path, methods in schema["paths"].items() for method, operation in methods.items()}
    assert operation_ids == HANDLERS
    protected = {path for path, methods in schema["paths"].items() for operation in methods.values() if operation.get("security") == [{"bearer": []}]}
    assert protected == PROTECTED


def test_schema_is_valid_openapi(schema):
    import openapi_spec_validator

    openapi_spec_validator.validate(schema)


def test_successful_responses_have_the_described_fields(schema, own_server):
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
def test_error_responses_of_every_operation_are_among_its_examples(schema, own_server, path, method):
    ann, bob = own_server.client().new_user(), own_server.client().new_user()
    anonymous = own_server.client()
    url_path = path.replace("{id}", str(ann.add_movie()["id"]))
    operation = schema["paths"][path][method]
    takes_body = "requestBody" in operation

    def check(response, status):
        assert response.status_code == status
        check_response_is_described(schema, path, method, response)

    check(ann.send("BREW", url_path), 405)
    check(ann.send(method.upper(), url_path, headers={"Host": "a b"}), 400)
    if takes_body:
        check(ann.send(method.upper(), url_path, raw="x", headers={"Content-Type": "text/plain"}), 415)
        check(ann.send(method.upper(), url_path, json_body=[]), 400)
        check(ann.send(method.upper(), url_path, raw="x", headers={"Content-Type": "application/json"}), 400)
        invalid = {"year": "x", "email": "x"} if method == "patch" else {}
        check(ann.send(method.upper(), url_path, json_body=invalid), 400)
    if path in PROTECTED:
        check(anonymous.send(method.upper(), url_path), 401)
    if path in {*PROTECTED, REGISTER}:
        check(anonymous.send(method.upper(), url_path, headers={"Authorization": "Bearer a b"}), 401)
        check(anonymous.with_token("garbage").send(method.upper(), url_path), 401)
    if path == MOVIE:
        request_body = {"json_body": movie_fields()} if takes_body else {}
        check(ann.send(method.upper(), f"{MOVIES}0/", **request_body), 404)
        check(bob.send(method.upper(), url_path, **request_body), 403)
    if path == MOVIES and method == "get":
        check(ann.get(f"{MOVIES}?page=0"), 404)
        check(ann.get(f"{MOVIES}?year=x"), 400)
    if path == TOKEN:
        check(anonymous.post(TOKEN, {"username": "unknown", "password": "wrong"}), 401)
    if "refresh" in path:
        check(anonymous.post(path, {"refresh": "garbage"}), 401)


def test_error_response_during_database_outage_is_an_example(start_server, database):
    client = start_server().client()
    ann = client.new_user()
    schema = client.get(SCHEMA).json()
    database.disallow_connections()
    check_response_is_described(schema, MOVIES, "get", ann.get(MOVIES))
    assert client.get(SCHEMA).json() == schema
    database.allow_connections()


def operations_with_body(schema):
    """Yields path, method and body schema of each operation that takes a body."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/")[-1]
                yield path, method, schema["components"]["schemas"][name]


def test_required_fields_are_those_reported_as_missing(schema, own_server):
    ann = own_server.client().new_user()
    movie = str(ann.add_movie()["id"])
    for path, method, shape in operations_with_body(schema):
        response = ann.send(method.upper(), path.replace("{id}", movie), json_body={})
        reported = [] if response.status_code == 200 else list(response.json())
        assert reported == shape.get("required", []), (path, method)


def test_max_length_is_the_longest_text_accepted(schema, own_server):
    ann = own_server.client().new_user()
    movie = str(ann.add_movie()["id"])
    checked = 0
    for path, method, shape in operations_with_body(schema):
        for field, description in shape["properties"].items():
            max_length = description.get("maxLength")
            for length in (max_length, max_length + 1) if max_length else ():
                response = ann.send(method.upper(), path.replace("{id}", movie), json_body={field: "a" * length})
                messages = [] if response.status_code == 200 else response.json().get(field, [])
                is_refused = f"Ensure this field has no more than {max_length} characters." in messages
                assert is_refused == (length > max_length), (path, method, field, length)
                checked += 1
    # A registration's four, the account's three by two methods, and the movie's two by three.
    assert checked == 2 * (4 + 3 * 2 + 2 * 3)


REFUSED_BY_HTTP_SERVER = {
    400: b"GET / HTTP/1.1\r\n\r\n",
    413: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n",
    414: b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 8192),
    417: b"GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
    431: b"GET / HTTP/1.1\r\nHost: a\r\nA: %s\r\n\r\n" % (b"a" * 16384),
    505: b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("status", REFUSED_BY_HTTP_SERVER)
def test_error_responses_of_the_http_server_are_examples_of_every_operation(schema, own_server, status):
    response = send_bytes(own_server.base, REFUSED_BY_HTTP_SERVER[status])
    assert response.status_code == status
    for path, method in HANDLERS:
        description = schema["paths"][path][method]["responses"][str(status)]
        examples = description["content"]["application/json"]["examples"].values()
        assert response.json() in [example["value"] for example in examples]

"""The documentation page (Swagger UI) at /api/v1/docs/: it loads nothing from other sites, and its forms work in a browser."""
import json
import re

import pytest

from helpers.client import MOVIES
from helpers.settings import ROOT

DOCS = "/api/v1/docs/"
SCREENSHOT_FOLDER = ROOT / "target" / "screenshots"


def test_page_loads_only_files_of_the_service(own_server):
    client = own_server.client()
    page = client.get(DOCS)
    assert page.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert not re.search(r"(src|href)=\"(https?:)?//|<script>|<style>|style=|onclick=", page.text)
    loaded = re.findall(r"(?:src|href)=\"(?:\./)?([^\"]+)\"", page.text)
    assert len(loaded) == 7
    for name in loaded:
        file = client.get(DOCS + name)
        kind = {"js": "text/javascript", "css": "text/css", "png": "image/png"}[name.rsplit(".")[-1]]
        assert (file.status_code, file.headers["Content-Type"]) == (200, kind)
        assert file.headers["Cache-Control"] == "max-age=3600"
        assert file.content


def test_root_path_redirects_browsers_to_the_page(own_server):
    client = own_server.client()
    for method in ("GET", "HEAD"):
        for accepted in ("text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"):
            response = client.send(method, "/", headers={"Accept": accepted})
            assert (response.status_code, response.headers["Location"], response.headers["Vary"]) == (302, DOCS, "Accept")
        assert client.send(method, "/", headers={"Accept": "*/*"}).status_code == 404


@pytest.mark.parametrize("name", ["", "swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js", "favicon-32x32.png"])
def test_page_is_gzipped_only_for_clients_that_accept_gzip(own_server, name):
    client = own_server.client()
    contents = set()
    for accepted, may_be_gzipped in [(None, False), ("identity", False), ("gzip;q=0", False), ("gzip", True), ("br, *", True)]:
        response = client.send("GET", DOCS + name, headers={"Accept-Encoding": accepted})
        assert response.headers["Vary"] == "Accept-Encoding"
        assert may_be_gzipped or "Content-Encoding" not in response.headers
        contents.add(response.content)
    assert len(contents) == 1
    if name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert client.send("GET", DOCS + name, headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("name", ["index.html", "swagger-ui.js", "oauth2-redirect.html", "../schema/", "x"])
def test_other_files_return_404(own_server, name):
    assert own_server.client().send("GET", DOCS + name).status_code == 404


@pytest.mark.parametrize("path", [DOCS, "/api/v1/schema/"])
def test_path_without_trailing_slash_is_redirected(own_server, path):
    response = own_server.client().get(path[:-1])
    assert (response.status_code, response.headers["Location"]) == (308, path)


def test_user_can_register_sign_in_create_a_movie_and_delete_the_account_on_the_page(start_server, browser):
    from selenium.common.exceptions import ElementClickInterceptedException
    from selenium.webdriver.support.ui import WebDriverWait

    SCREENSHOT_FOLDER.mkdir(parents=True, exist_ok=True)
    wait = WebDriverWait(browser, 60)
    server = start_server()

    def find(selector, section=browser):
        return wait.until(lambda _: next((found for found in section.find_elements("css selector", selector) if found.is_displayed()), None))

    def save_screenshot(name):
        browser.save_screenshot(str(SCREENSHOT_FOLDER / f"{name}.png"))

    def click(element):
        """Clicks when nothing covers the element: the page moves while responses arrive and sections open."""

        def is_clicked(_):
            browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
            try:
                element.click()
            except ElementClickInterceptedException:
                return False
            return True

        wait.until(is_clicked)

    def execute(tag, operation, status, **parameters):
        """Executes the operation with the example body and these parameters; returns the response body that the page shows."""
        section = find(f"#operations-{tag}-{operation}")
        if "is-open" not in section.get_attribute("class"):
            click(find(".opblock-summary-control", section))
        for name, value in parameters.items():
            find(f"tr[data-param-name={name}] input", section).send_keys(value)
        click(find(".execute", section))
        wait.until(lambda _: find(".live-responses-table tbody .response-col_status", section).text.startswith(status))
        browser.execute_script("arguments[0].scrollIntoView()", find(".execute-wrapper, .btn-group", section))
        save_screenshot(operation)
        body = section.find_elements("css selector", ".live-responses-table tbody .response-col_description .highlight-code code")
        return json.loads(body[0].text) if body else None

    def authorize(token, replaces_another=False):
        """Enters the access token in the dialog of the page."""
        click(find(".btn.authorize"))
        if replaces_another:
            next(button for button in browser.find_elements("css selector", ".modal-ux button.auth") if button.text == "Logout").click()
        find(".modal-ux input").send_keys(token)
        save_screenshot("authorize")
        find(".modal-ux .btn.authorize").click()
        find(".modal-ux .btn-done").click()

    browser.get(server.base + DOCS)
    find("#operations-movies-create_movie")
    save_screenshot("page")
    assert execute("movies", "create_movie", "401") == {"detail": "Authentication credentials were not provided."}
    assert re.fullmatch(r"ann-\w+", execute("accounts", "register", "201")["username"])
    access = execute("accounts", "obtain_token", "200")["access"]
    authorize(access)
    created = execute("movies", "create_movie", "201")
    assert created["title"] == "Heat"
    user = server.client().with_token(access)
    assert user.get(f"{MOVIES}{created['id']}/").json() == created
    assert execute("movies", "list_movies", "200", title="heat")["results"] == [created]
    execute("movies", "delete_movie", "204", id=created["id"])
    assert user.get(f"{MOVIES}{created['id']}/").status_code == 404
    browser.refresh()
    assert find(".btn.authorize.locked"), "the page does not keep the token when it is loaded again"
    find("#operations-movies-create_movie")
    for _ in range(2):
        execute("accounts", "register", "201")
    execute("accounts", "obtain_token", "200")
    assert execute("accounts", "read_account", "200")["username"] == created["creator"]
    tokens = execute("accounts", "change_password", "200")
    assert execute("accounts", "read_account", "401")["code"] == "password_changed"
    authorize(tokens["access"], replaces_another=True)
    execute("accounts", "delete_account", "204")
    assert execute("accounts", "read_account", "401")["code"] == "user_not_found"
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE" and "401" not in entry["message"]]
    assert errors == []

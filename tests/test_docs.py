"""The page at /api/v1/docs/: nothing from elsewhere, and a person gets from it to a stored movie by clicking alone."""
import re
import shutil
from pathlib import Path

import pytest
from client import MOVIES, PASSWORD, word

DOCS = "/api/v1/docs/"
SCREENSHOTS = Path(__file__).parent.parent / "target" / "screenshots"


def test_the_page_is_the_service_s_own_files_alone(own_server):
    client = own_server.client()
    page = client.get(DOCS)
    assert page.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert not re.search(r"(src|href)=\"(https?:)?//|<script>|<style>|style=|onclick=", page.text)
    for name, media_type in (("page.js", "text/javascript"), ("page.css", "text/css")):
        asset = client.get(DOCS + name)
        assert (asset.status_code, asset.headers["Content-Type"].split(";")[0]) == (200, media_type)
        assert asset.headers["Cache-Control"] == "max-age=3600"


@pytest.mark.parametrize("path", [DOCS, "/api/v1/schema/"])
def test_without_its_slash_the_path_is_sent_on(own_server, path):
    answer = own_server.client().get(path[:-1])
    assert (answer.status_code, answer.headers["Location"]) == (308, path)


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
    for flag in [*flags.split(), f"user-data-dir={tmp_path}", "window-size=1000,1100"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def test_a_person_goes_from_the_page_to_a_stored_movie(own_server, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    wait = WebDriverWait(browser, 10)
    name, title = f"ann{word()}", f"Heat {word()}"

    def fill(operation, fields, status):
        """Opens the operation, fills its form, sends it; what is shown."""
        place = wait.until(lambda _: browser.find_element("id", operation))
        if not place.get_attribute("open"):
            place.find_element("tag name", "summary").click()
        for field, value in fields.items():
            place.find_element("name", field).send_keys(value)
        place.find_element("css selector", "button[type=submit]").click()
        shown = place.find_element("tag name", "pre")
        wait.until(lambda _: f"\n{status}" in shown.text)
        browser.execute_script("arguments[0].scrollIntoView()", place)
        browser.save_screenshot(str(SCREENSHOTS / f"{operation}.png"))
        return shown

    browser.get(own_server.base + DOCS)
    fill("create_movie", {"title": title}, 401)
    fill("register", {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "password2": PASSWORD}, 201)
    fill("obtain_token", {"username": name, "password": PASSWORD}, 200).find_element("class name", "use").click()
    assert browser.find_element("id", "signed").text == "Authorised."
    made = fill("create_movie", {"genre": "Crime", "year": "1995"}, 201)
    movie = re.search(r'"id": (\d+)', made.text)[1]
    assert title in fill("list_movies", {"title": title.lower()}, 200).text
    user = own_server.client()
    user.token = browser.find_element("id", "token").get_attribute("value")
    assert user.get(f"{MOVIES}{movie}/").json()["title"] == title
    fill("delete_movie", {"id": movie}, 204)
    assert user.get(f"{MOVIES}{movie}/").status_code == 404
    told = [entry["message"] for entry in browser.get_log("browser") if "401" not in entry["message"]]
    assert told == []

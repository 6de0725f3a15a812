"""The Markdown pages: their commands print the outputs below them, their tables list the program's settings, and their links lead to
existing pages. With README_UPDATE=1 the test writes the outputs into the pages."""
import os
import re
import subprocess

import pytest

from helpers.settings import BINARY, ROOT

BLOCK = re.compile(r"^```(?:console|text)\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "end-of-command"

# Each page with at least as many commands as it has to have.
PAGES_WITH_COMMANDS = {"README.md": 15, "OPERATIONS.md": 8, "src/README.md": 1}


def commands_in(text):
    """Returns the commands (the lines after `$ `) in the page's console blocks, in order."""
    return [line[2:] for block in BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")]


def run_in_one_shell(commands, server):
    """Runs the commands in one shell, with the server's settings in the environment; returns the output of each."""
    base, environment = server.base, {**os.environ, **server.settings, "COLUMNS": "80"}
    script = "".join(f"{command}\necho; echo {MARK}\n" for command in commands)
    script = script.replace("http://127.0.0.1:8000", base).replace("target/release/movies-api", BINARY).replace("./run.sh ", f"{BINARY} ")
    completed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT, env=environment)
    outputs = completed.stdout.replace(base, "http://127.0.0.1:8000").split(f"\n{MARK}\n")[:-1]
    return [output.strip("\n") for output in outputs]


def paste(text, outputs):
    """Returns the page with these outputs below its commands."""
    remaining_outputs = iter(outputs)

    def block(match):
        lines = []
        for line in match[1].splitlines():
            if line.startswith("$ "):
                lines += [line, *filter(None, [next(remaining_outputs)])]
        language = match[0].split("\n", 1)[0]
        return "\n".join([language, *lines, "```"])

    return BLOCK.sub(block, text)


@pytest.mark.own_servers
@pytest.mark.parametrize("name", PAGES_WITH_COMMANDS)
def test_commands_print_the_outputs_pasted_below_them(make_server, name):
    page = ROOT / name
    text = page.read_text()
    commands = commands_in(text)
    assert len(commands) >= PAGES_WITH_COMMANDS[name]
    server = make_server()
    updated = paste(text, run_in_one_shell(commands, server))
    if os.environ.get("README_UPDATE"):
        page.write_text(updated)
    assert updated == page.read_text()


def settings_in_help():
    """Yields variable, flag and default (None if it has none) of each setting in --help."""
    text = subprocess.run([BINARY, "--help"], capture_output=True, text=True, timeout=10, check=True, env={}).stdout
    for option in re.split(r"\n(?= {2,6}(?:-\w, )?--)", text)[1:]:
        flag, variable = re.match(r" *(?:-\w, )?(--[\w-]+)", option)[1], re.search(r"\[env: (\w+)\]", option)
        if variable:
            default = re.search(r"\[default: (.+?)\]", option)
            yield variable[1], flag, default and default[1]


def rows_of_table(page, first_column):
    """Returns the cells, without backticks, of the table whose first column has this title."""
    lines = (ROOT / page).read_text().split(f"\n| {first_column} | ")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.own_servers
def test_tables_of_settings_list_each_setting_with_its_default():
    settings = list(settings_in_help())
    assert len(settings) > 15
    overview, reference = rows_of_table("README.md", "variable"), rows_of_table("OPERATIONS.md", "variable")
    assert [row[:2] for row in reference] == [[variable, flag] for variable, flag, _ in settings]
    assert [row[0] for row in overview] == [variable for variable, *_ in settings]
    for (_, _, default), short, long in zip(settings, overview, reference):
        assert short[1] == long[2]
        assert default in (None, short[1])


def pages():
    folders = [ROOT.glob("*.md"), *((ROOT / folder).rglob("*.md") for folder in ("src", "sql", "tests"))]
    files = [page for folder in folders for page in folder]
    return [page for page in files if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)]


def without_code_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(page):
    """Returns the anchors that GitHub creates for the page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_relative_link_and_anchor_exists():
    broken, links = [], 0
    for page in pages():
        text = re.sub(r"`[^`\n]*`", "", without_code_blocks(page.read_text()))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"\w+:", target):
                continue
            links += 1
            path, _, anchor = target.partition("#")
            linked_page = (page.parent / path).resolve() if path else page
            if not linked_page.exists() or anchor and anchor not in anchors_of(linked_page):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert (broken, links > 20) == ([], True)

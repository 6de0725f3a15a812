"""The commands in README.md, run as written, and their outputs. With README_UPDATE=1 the test writes the outputs into README.md."""
import os
import re
import subprocess

import pytest

from helpers.settings import BINARY, README

BLOCK = re.compile(r"^```(?:console|text)\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "end-of-command"

pytestmark = pytest.mark.own_servers


def commands_in(text):
    """Returns the commands (the lines after `$ `) in the README's console blocks, in order."""
    return [line[2:] for block in BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")]


def run_in_one_shell(commands, server):
    """Runs the commands in one shell, with the server's settings in the environment; returns the output of each."""
    base, environment = server.base, {**os.environ, **server.settings, "COLUMNS": "80"}
    script = "".join(f"{command}\necho; echo {MARK}\n" for command in commands)
    script = script.replace("http://127.0.0.1:8000", base).replace("target/release/movies-api", BINARY).replace("./run.sh ", f"{BINARY} ")
    completed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=README.parent, env=environment)
    outputs = completed.stdout.replace(base, "http://127.0.0.1:8000").split(f"\n{MARK}\n")[:-1]
    return [output.strip("\n") for output in outputs]


def paste(text, outputs):
    """Returns the README with these outputs below its commands."""
    remaining_outputs = iter(outputs)

    def block(match):
        lines = []
        for line in match[1].splitlines():
            if line.startswith("$ "):
                lines += [line, *filter(None, [next(remaining_outputs)])]
        language = match[0].split("\n", 1)[0]
        return "\n".join([language, *lines, "```"])

    return BLOCK.sub(block, text)


def test_each_command_of_the_readme_prints_the_output_below_it(make_server):
    text = README.read_text()
    commands = commands_in(text)
    assert len(commands) > 10
    server = make_server()
    updated = paste(text, run_in_one_shell(commands, server))
    if os.environ.get("README_UPDATE"):
        README.write_text(updated)
    assert updated == README.read_text()

"""README.md's commands, run as written, and their outputs as pasted. With README_UPDATE=1 the outputs are pasted anew."""
import os
import re
import subprocess

import pytest

from helpers.settings import BINARY, README

BLOCK = re.compile(r"^```(?:console|text)\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "end-of-command"

pytestmark = pytest.mark.own_servers


def commands_in(text):
    """Every line behind a dollar in the README's console blocks, in their order."""
    return [line[2:] for block in BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")]


def run_in_one_shell(commands, server):
    """The output of each command, with the server's settings in the environment; variables live on from one to the next."""
    base, environment = server.base, {**os.environ, **server.settings, "COLUMNS": "80"}
    script = "".join(f"{command}\necho; echo {MARK}\n" for command in commands)
    script = script.replace("http://127.0.0.1:8000", base).replace("target/release/movies-api", BINARY).replace("./run.sh ", f"{BINARY} ")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=README.parent, env=environment)
    outputs = done.stdout.replace(base, "http://127.0.0.1:8000").split(f"\n{MARK}\n")[:-1]
    return [output.strip("\n") for output in outputs]


def paste(text, outputs):
    """The README with these outputs below its commands."""
    left = iter(outputs)

    def block(match):
        shown = []
        for line in match[1].splitlines():
            if line.startswith("$ "):
                shown += [line, *filter(None, [next(left)])]
        language = match[0].split("\n", 1)[0]
        return "\n".join([language, *shown, "```"])

    return BLOCK.sub(block, text)


def test_each_command_of_the_readme_answers_what_stands_below_it(make_server):
    text = README.read_text()
    commands = commands_in(text)
    assert len(commands) > 10
    server = make_server()
    fresh = paste(text, run_in_one_shell(commands, server))
    if os.environ.get("README_UPDATE"):
        README.write_text(fresh)
    assert fresh == README.read_text()

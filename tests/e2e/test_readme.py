"""The tour in the README, typed as it stands: what a reader has to fill in is filled in from what was printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from scripts.demolib.network import remove_images
from vantage.testing.ports import free_ports
from vantage.testing.program import Program

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery staple"
ASK_FOR_A_PASSWORD = ("vantage bootstrap", "vantage login", "vantage user create")
READY = {"vantage": "ready: ", "docker-registry": "listening on"}


def blocks() -> Iterator[tuple[str, str]]:
    """Language and text of each block to try, in the order of the README."""
    for found in re.finditer(r"^```(bash|yaml|python)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S):
        yield found[1], found[2]


def commands(block: str) -> Iterator[str]:
    """The commands of a block, each whole."""
    lines = iter(block.splitlines())
    for line in lines:
        command = line
        while command.endswith("\\"):
            command += "\n" + next(lines)
        if (document := re.search(r"<<'?(\w+)'?$", line)) is not None:
            for line in lines:
                command += "\n" + line
                if line == document[1]:
                    break
        yield command


class Reader:
    """Somebody who follows the README in a directory."""

    def __init__(self, directory: Path, programs: ExitStack) -> None:
        self.directory = directory
        self.known = {
            f"127.0.0.1:{port}": f"127.0.0.1:{free}" for port, free in zip((5000, 7600), free_ports(2), strict=True)
        }
        self.known["PASSWORD"] = PASSWORD
        self._programs = programs
        self.said = ""
        self.environment = {
            "REPO": str(ROOT),
            "VANTAGE_CONFIG_DIR": str(directory / "config"),
            "COSIGN_PASSWORD": PASSWORD,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def filled_in(self, text: str) -> str:
        """The text with what this reader knows in place of what stands for it."""
        for name, value in self.known.items():
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w:])", value, text)
        return text

    def types(self, command: str) -> None:
        """Run a command, in another terminal if it keeps running, and note what it prints."""
        command = self.filled_in(command)
        if "# keeps running" in command:
            words = command.partition("#")[0].split()
            program = Program(["env", f"--chdir={self.directory}", *words], self.directory / f"{words[1]}.log")
            self._programs.enter_context(program).wait_for(READY[words[0]])
            return
        if command.startswith("vantage server init"):
            # The port of the README may be in use.
            command = f"{command.partition('#')[0]} --listen {self.known['127.0.0.1:7600']}"
        if command.startswith(ASK_FOR_A_PASSWORD):
            command += " --password-stdin"
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.directory, input=PASSWORD, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        self.reads(done.stdout)

    def reads(self, said: str) -> None:
        """Note what a later command needs."""
        for name, pattern in (
            ("FINGERPRINT", r"^fingerprint: (\S+)"),
            ("TOKEN", r"^bootstrap-token: (\S+)"),
            ("KEYS", r"^made keys for \S+ in (\S+)"),
            ("ACCESS_TOKEN", r'"accessToken": "([^"]+)"|"access_token": "([^"]+)"'),
            ("digest", r"digest: (sha256:\w+)"),
        ):
            if (found := re.search(pattern, said, re.M)) is not None:
                self.known.setdefault(name, found[found.lastindex or 1])
        if "digest" in self.known:
            self.known["IMAGE"] = f"{self.known['127.0.0.1:5000']}/algorithms/summary@{self.known.pop('digest')}"
        self.said = said

    def edits(self, block: str) -> None:
        """Replace settings of the node, as the README says."""
        path = self.directory / "clara/node.yaml"
        config, wanted = yaml.safe_load(path.read_text()), yaml.safe_load(self.filled_in(block))
        config["policy"] |= wanted.pop("policy")
        path.write_text(yaml.safe_dump(config | wanted))


def test_the_tour_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    with ExitStack() as programs:
        reader = Reader(tmp_path, programs)
        for name, value in reader.environment.items():
            monkeypatch.setenv(name, value)
        programs.callback(remove_images, [f"{reader.known['127.0.0.1:5000']}/algorithms/summary"])
        for language, text in blocks():
            match language:
                case "bash":
                    for command in commands(text):
                        reader.types(command)
                        answers.append(reader.said)
                case "yaml":
                    reader.edits(text)
                case "python":
                    reader.types(f"python3 - <<'PYTHON'\n{text}PYTHON")
                    answers.append(reader.said)
    said = "\n".join(answers)
    assert '"count": 105' in said or "count: 105" in said, said  # by the command line
    assert "organizations/clara 6" in said, said  # by Python
    assert "vantage.api.task.v1.TaskService" in said  # by grpcurl
    assert "TASK_STATE_SUCCEEDED" in said

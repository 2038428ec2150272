"""The network of the demo, made with the commands that its people would type."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from scripts.demolib.console import note, typed
from scripts.demolib.services import Services, Trouble

ROOT = Path(__file__).resolve().parents[2]
HOSPITALS = ("beatrix", "clara", "hilda")
HOME = "dora"
RESEARCHER = "rosa"
COLLABORATION = "lungs"
EXAMPLES = ("summary", "kaplan-meier")


def run(*command: str | Path, stdin: str = "", cwd: Path = ROOT, **environment: str) -> str:
    """Run a command to its end; returns what it printed.

    Raises:
        Trouble: it failed; with what it said.
    """
    done = subprocess.run(
        [str(each) for each in command],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join(str(each) for each in command[2:6])
        raise Trouble(f"{shown} … failed ({done.returncode}):\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def pushed_name(repository: str) -> str:
    """The name by digest of the image that was pushed as ``repository:1``.

    An engine that built the same image before knows it by a name in every registry that it was ever pushed to, also in
    those that are gone.
    """
    names = run("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", f"{repository}:1")
    (name,) = (each for each in json.loads(names) if each.startswith(f"{repository}@"))
    return str(name)


class Network:
    """Server, registry, three hospitals, and a researcher of a fourth organization.

    Args:
        directory: holds everything.
        services: what runs.
    """

    def __init__(self, directory: Path, services: Services) -> None:
        self.directory = directory
        self.services = services
        self.passwords = {name: secrets.token_urlsafe(15) for name in ("root", RESEARCHER, "author")}
        self.address = ""
        self.fingerprint = ""
        self.registry = ""
        self.images: dict[str, str] = {}
        self._token = ""

    def vantage(self, *arguments: str | Path, user: str = "", stdin: str = "", quiet: bool = False) -> str:
        """Run ``vantage`` as one of the users, who each have profiles of their own."""
        if not quiet:
            self._typed(*arguments)
        return run(
            *vantage(*arguments),
            stdin=stdin,
            VANTAGE_CONFIG_DIR=str(self.config_of(user or "nobody")),
            COSIGN_PASSWORD=self.passwords["author"],
        )

    def _typed(self, *arguments: str | Path) -> None:
        """Show a command, short: paths from the demo's directory, digests by their first digits, no secrets."""

        def short(argument: str) -> str:
            text = argument.replace(f"{self.directory}/", "")
            if text == self._token:
                return "TOKEN"
            text = re.sub(r"(sha256:[0-9a-f]{7})[0-9a-f]{57}", r"\1…", text)
            return f"'{text}'" if re.search(r"[ {]", text) else text

        typed(" ".join(["vantage", *(short(str(each)) for each in arguments)]))

    def config_of(self, user: str) -> Path:
        """Where a user's profiles and tokens are."""
        return self.directory / "users" / user

    def start_registry(self) -> None:
        """A registry on a port that the system picks."""
        place = self.directory / "registry"
        place.mkdir()
        config = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(place)}},
            "http": {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16)},
        }
        (place / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self.registry = self.services.start(
            "registry",
            ["docker-registry", "serve", str(place / "config.yml")],
            r"listening on (127\.0\.0\.1:\d+)",
            OTEL_TRACES_EXPORTER="none",
        )
        note(f"it listens on {self.registry}")

    def start_server(self) -> None:
        """A server with a certificate of its own and no users; its first user."""
        data = self.directory / "server"
        said = self.vantage("server", "init", "--trial", "--data", data)
        self._token = said.partition("bootstrap-token: ")[2].split()[0]
        self.fingerprint = said.partition("fingerprint: ")[2].split()[0]
        start = ("server", "start", "--data", data, "--listen", "127.0.0.1:0")
        self._typed(*start)
        self.address = self.services.start("server", vantage(*start), r"^ready: (\S+)")
        note(f"it listens on {self.address}, certificate {self.fingerprint[:23]}…")
        self.vantage(
            *("bootstrap", *self.server, "--username", "root", "--token", self._token, "--password-stdin"),
            user="root",
            stdin=self.passwords["root"],
        )

    @property
    def server(self) -> tuple[str, ...]:
        """Options that name the server."""
        return ("--server", self.address, "--fingerprint", self.fingerprint)

    def create(self) -> None:
        """Organizations with their own authorities, a collaboration, a researcher, nodes."""
        for name in (*HOSPITALS, HOME):
            self.vantage("org", "init", name, "--ca", self.directory / name / "ca", quiet=name != "clara")
        for name in (*HOSPITALS, HOME):
            self.vantage(
                *("org", "create", name, "--ca-certificate", self._authority(name)), user="root", quiet=name != "clara"
            )
        members = [part for name in (*HOSPITALS, HOME) for part in ("--organization", name)]
        self.vantage("collaboration", "create", COLLABORATION, *members, user="root")
        self.vantage(
            *("user", "create", RESEARCHER, "--organization", HOME, "--role", "researcher", "--password-stdin"),
            user="root",
            stdin=self.passwords[RESEARCHER],
        )
        for name in HOSPITALS:
            self.vantage(
                *("node", "create", f"{name}-1", "--organization", name, "--collaboration", COLLABORATION),
                user="root",
                quiet=name != "clara",
            )

    def _authority(self, organization: str) -> Path:
        """The certificate by which others recognise an organization; its key stays beside it, with the organization."""
        return self.directory / organization / "ca" / "ca-cert.pem"

    def start_nodes(self, docker_host: str) -> None:
        """A node beside the data of each hospital."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self._start_node(name, docker_host, quiet=name != "clara"), HOSPITALS))

    def _start_node(self, name: str, docker_host: str, *, quiet: bool) -> None:
        place = self.directory / name
        station = place / "node"
        who = ("--organization", name, "--node", f"{name}-1")
        self.vantage("node", "init", station, *self.server, *who, quiet=quiet)
        self.vantage(
            *("node", "issue", station / "node-cert.csr", "--ca", place / "ca", "--expect", f"{name}-1"),
            *("--yes", "--out", station / "node-cert.pem"),
            quiet=quiet,
        )
        shutil.copyfile(ROOT / "examples/data" / f"{name}.csv", station / "lung.csv")
        (station / "lung.csv").chmod(0o644)
        shutil.copyfile(self.directory / "author.pub", station / "author.pub")
        self._configure(station / "node.yaml", docker_host)
        for other in (*HOSPITALS, HOME):
            if other != name:
                self.vantage(
                    *("node", "trust", "add", other, "--certificate", self._authority(other)),
                    *("--config", station / "node.yaml"),
                    quiet=quiet or other != HOME,
                )
        self.vantage("node", "check", "--config", station / "node.yaml", quiet=quiet)
        start = ("node", "start", "--config", station / "node.yaml")
        if not quiet:
            self._typed(*start)
        self.services.start(f"node {name}", vantage(*start), r"^ready: (\S+)")

    def _configure(self, path: Path, docker_host: str) -> None:
        """What the admin of a data station adds: a dataset, whose images may run, and how much they may use."""
        config: dict[str, Any] = yaml.safe_load(path.read_text())
        config["datasets"] = [{"name": "lung", "path": "lung.csv", "format": "csv"}]
        config["policy"]["images"] = [{"repository": f"{self.registry}/algorithms/*", "keys": ["author.pub"]}]
        config["limits"]["memory"] = "512MiB"
        if docker_host:
            config["docker"] = {"host": docker_host}
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def create_author(self) -> None:
        """The keys of the author of the algorithms."""
        self.vantage("image", "key", "--out", self.directory / "author")

    def publish(self) -> None:
        """Build the images of the examples, push and sign them."""
        for name in EXAMPLES:
            repository = f"{self.registry}/algorithms/{name}"
            example = ROOT / "examples" / name
            declaration = run(sys.executable, "-m", "vantage.algorithm", "declare", "algorithm", cwd=example).strip()
            typed(f"docker build --tag {repository}:1 examples/{name}; docker push {repository}:1")
            run(
                *("docker", "build", "--quiet", "--network", "none", "--tag", f"{repository}:1"),
                *("--build-arg", f"DECLARATION={declaration}", example),
                DOCKER_BUILDKIT="0",
            )
            run("docker", "push", "--quiet", f"{repository}:1")
            image = pushed_name(repository)
            self.vantage("image", "sign", image, "--key", self.directory / "author.key")
            self.images[name] = image

    def log_in(self) -> None:
        """The researcher logs in, gets a key certified by her organization, and says whom she believes."""
        self.vantage(
            *("login", *self.server, "--username", RESEARCHER, "--password-stdin"),
            user=RESEARCHER,
            stdin=self.passwords[RESEARCHER],
        )
        self.vantage("key", "create", user=RESEARCHER)
        (request,) = self.config_of(RESEARCHER).rglob("user-cert.csr")
        certificate = self.directory / "rosa-cert.pem"
        self.vantage(
            *("user", "issue", request, "--ca", self.directory / HOME / "ca", "--expect", RESEARCHER),
            *("--yes", "--out", certificate),
        )
        self.vantage("key", "import", certificate, user=RESEARCHER)
        for name in HOSPITALS:
            self.vantage(
                *("trust", "add", name, "--certificate", self._authority(name)), user=RESEARCHER, quiet=name != "clara"
            )

    def ask(self, image: str, function: str, arguments: dict[str, Any], *more: str | Path) -> str:
        """The researcher asks; one of the hospitals combines the answers of all."""
        return self.vantage(
            *("task", "run", "--image", self.images[image], "--function", function, "--organization", "clara"),
            *("--arguments", json.dumps(arguments | {"organizations": list(HOSPITALS)}), "--output", "json", *more),
            user=RESEARCHER,
        )


def vantage(*arguments: str | Path) -> list[str]:
    """Command line of ``vantage`` with this interpreter."""
    return [sys.executable, "-m", "vantage", *(str(each) for each in arguments)]


def remove_images(repositories: Sequence[str]) -> None:
    """Remove the images of the demo from the engine, whatever became of them.

    By their names: somebody else who builds the same example gets an image of the same id, which stays theirs.
    """
    found = subprocess.run(
        ["docker", "image", "ls", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    names = set()
    for repository, tag, digest in (line.split() for line in found.splitlines()):
        if repository in repositories:
            names |= {f"{repository}:{tag}", f"{repository}@{digest}"}
    # What a node pulled may have no tag, what was not pushed no digest. Digests first: the last tag takes them along.
    for name in sorted(names, reverse=True):
        if not name.endswith("<none>"):
            subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)

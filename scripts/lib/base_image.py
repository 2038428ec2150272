"""Build the algorithm base image when the sources that go into it have changed.

The image is tagged with a hash of its inputs, so that an unchanged one costs one look. Wheels are fetched on the
host and kept in the cache directory; the build itself needs no network.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = "vantage/algorithm-base"
OFFICIAL = "python:3.11-slim"
DEBIAN = "vantage/debian-python:3.11"
PULL_SECONDS = 10
"""Until a registry has begun to answer."""
LAYERS_SECONDS = 300
"""Until it has sent everything; the Debian base takes less than that."""
# Only what an algorithm may import: the server and the node have no place in its image.
PACKAGES = ("api", "common", "algorithm")
# Packages of Debian that make up for the official image; pip comes as a wheel.
DEBIAN_PACKAGES = "python3,tzdata,ca-certificates"


def say(message: str) -> None:
    print(f"==> {message}", flush=True)


def run(*command: str | Path, **environment: str) -> None:
    """Run ``command``; on failure show what it said and stop."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(f"error: {' '.join(str(part) for part in command[:4])} ... failed: see above")


def has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def requirements() -> list[str]:
    """What an algorithm image needs besides vantage itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted([*project["dependencies"], *project["optional-dependencies"]["algorithm"]])


def sdk_files() -> list[Path]:
    """The files of the slim wheel, relative to the repository."""
    package = ROOT / "vantage"
    found = [package / "__init__.py", package / "py.typed"]
    for name in PACKAGES:
        found += [p for p in (package / name).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return sorted(path.relative_to(ROOT) for path in found)


def input_hash() -> str:
    """Changes whenever the image would."""
    digest = hashlib.sha256()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in (project["version"], DEBIAN_PACKAGES, *requirements()):
        digest.update(text.encode() + b"\0")
    for path in [*sdk_files(), Path("deploy/base/Dockerfile")]:
        content = (ROOT / path).read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def wheelhouse(cache: Path) -> Path:
    """Directory with the third-party wheels for CPython 3.11 on this machine's architecture, and the build backend."""
    wanted = requirements()
    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    house = cache / "wheels" / key
    if house.is_dir():
        return house
    say("fetching the wheels of the algorithm base image")
    machine = platform.machine()
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in (28, 27, 26, 24, 17)] + [f"manylinux2014_{machine}"]
    house.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=house.parent) as directory:
        fresh = Path(directory) / "house"
        third_party = fresh / "third-party"
        third_party.mkdir(parents=True)
        (third_party / "requirements.txt").write_text("\n".join(wanted) + "\n")
        # The same versions as in the development environment, where the tests run.
        frozen = subprocess.run(
            [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--all"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        constraints = Path(directory) / "constraints.txt"
        constraints.write_text(
            "".join(f"{line}\n" for line in frozen.splitlines() if "==" in line and "pip==" not in line)
        )
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
        run(
            *pip, "--python-version", "3.11", "--implementation", "cp",
            *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
            *(option for name in platforms for option in ("--platform", name)),
            "--constraint", constraints, "--requirement", third_party / "requirements.txt", "pip",
            "--dest", third_party,
        )  # fmt: skip
        run(*pip, "--dest", fresh / "build", "setuptools>=77")
        fresh.rename(house)
    return house


def build_wheel(house: Path, scratch: Path, destination: Path) -> None:
    """Write the wheel that holds the SDK and what it stands on into ``destination``."""
    for path in [*sdk_files(), *(Path(name) for name in ("pyproject.toml", "README.md", "LICENSE"))]:
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, scratch / path)
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--find-links", house / "build",
        "--wheel-dir", destination, scratch,
    )  # fmt: skip


def need_debian(cache: Path) -> str:
    """The base of the base where the official image cannot be had: Debian 12 with its own Python 3.11."""
    if has_image(DEBIAN):
        return DEBIAN
    tar = cache / f"debian-python-{hashlib.sha256(DEBIAN_PACKAGES.encode()).hexdigest()[:16]}.tar"
    if not tar.exists():
        if shutil.which("mmdebstrap") is None:
            if os.geteuid() != 0:
                raise SystemExit(
                    f"error: {OFFICIAL} cannot be pulled; install mmdebstrap to build a Debian base instead"
                )
            run("apt-get", "update")  # lists may be old, or not there at all
            run("apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap", DEBIAN_FRONTEND="noninteractive")
        say(f"{OFFICIAL} cannot be pulled: building a Debian base instead (about a minute, once)")
        partial = tar.with_suffix(".partial.tar")
        excluded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
        run(
            "mmdebstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded), "bookworm", partial,
        )  # fmt: skip
        partial.rename(tar)
    run("docker", "import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", tar, DEBIAN)
    return DEBIAN


def base(cache: Path) -> str:
    """Name of an image with Python 3.11 that is present: the official one if it can be had quickly."""
    wanted = os.environ.get("VANTAGE_PYTHON_IMAGE")
    if wanted:
        return wanted
    for name in (OFFICIAL, DEBIAN):
        if has_image(name):
            return name
    return OFFICIAL if pull() else need_debian(cache)


def pull() -> bool:
    """Pull the official image; give up when no registry begins to answer within seconds, or ends within minutes."""
    say(f"pulling {OFFICIAL}")
    with subprocess.Popen(
        ["docker", "pull", OFFICIAL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        # The first line of output comes once the registry has named the image's layers, which may then take longer.
        ready, _, _ = select.select([child.stdout], [], [], PULL_SECONDS)
        if not ready:
            child.terminate()
        try:
            child.communicate(timeout=LAYERS_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
    return child.returncode == 0 and has_image(OFFICIAL)


def build(cache: Path, tag: str) -> None:
    house = wheelhouse(cache)
    python = base(cache)
    say(f"building {IMAGE} from {python}")
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        context = Path(directory) / "context"
        shutil.copytree(house / "third-party", context / "third-party", copy_function=os.link)
        (context / "sdk").mkdir()
        build_wheel(house, Path(directory) / "tree", context / "sdk")
        shutil.copyfile(ROOT / "deploy/base/Dockerfile", context / "Dockerfile")
        run(
            "docker", "build", "--network", "none", "--build-arg", f"BASE={python}", "--label", f"vantage.base={tag}",
            "--tag", f"{IMAGE}:{tag}", context, DOCKER_BUILDKIT="0",
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="directory that keeps wheels and the Debian base")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    tag = input_hash()
    with (options.cache / "base-image.lock").open("w") as lock:
        # Two builds at once would fight over the wheelhouse and the tag.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not has_image(f"{IMAGE}:{tag}"):
            started = time.monotonic()
            build(options.cache, tag)
            say(f"{IMAGE}:{tag} built in {time.monotonic() - started:.1f} s")
        run("docker", "tag", f"{IMAGE}:{tag}", f"{IMAGE}:latest")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

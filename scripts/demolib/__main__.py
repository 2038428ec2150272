"""``python -m scripts.demolib``: the demo, or the end of one that was kept."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pandas as pd

from scripts.demolib import comparison, network
from scripts.demolib.console import console, note, step
from scripts.demolib.network import EXAMPLES, HOSPITALS, RESEARCHER, Network
from scripts.demolib.services import Services, Trouble

STATE = "demo.json"


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    if options.stop:
        remove(options.directory)
        return 0
    # Started in the background by a script, which makes them ignored; and a hang-up must clean up as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    kept = False
    try:
        made = demonstrate(options.directory, options.plot)
        kept = options.keep
        (keep if kept else suggest)(made)
    except Trouble as problem:
        console.print("error:", str(problem), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: stopping and removing everything", style="yellow")
        return 130
    finally:
        if not kept:
            # A second Ctrl-C must not leave half of it.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            remove(options.directory)
    return 0


def demonstrate(directory: Path, picture: Path) -> Network:
    """Make the network, ask both questions, compare.

    Raises:
        Trouble: something does not work, or an answer is wrong.
    """
    began = time.monotonic()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Network(directory, Services(directory))
    with step("a registry for the images of algorithms"):
        made.start_registry()
        (directory / STATE).write_text(json.dumps({"registry": made.registry}))
    with step("a server, and its first user"):
        made.start_server()
    with step(f"organizations {', '.join(HOSPITALS)} and {network.HOME}; each hospital certifies its own node"):
        made.create()
    with step("an author builds, pushes and signs two algorithms"):
        made.create_author()
        made.publish()
    with step("a node beside the data of each hospital (shown: clara)"):
        made.start_nodes(os.environ.get("DOCKER_HOST", ""))
        note("connected: " + ", ".join(f"{name}-1" for name in HOSPITALS))
    records = comparison.pooled()
    with step(f"{RESEARCHER} of {network.HOME}, who has no data, asks for a summary"):
        made.log_in()
        said = made.ask("summary", "summary", {"columns": list(comparison.COLUMNS)})
    difference = comparison.compare_summary(json.loads(said)["results"][0]["value"], records)
    comparison.check("summary", difference)
    with step(f"{RESEARCHER} asks for a survival curve"):
        table = directory / "curve.parquet"
        made.ask("kaplan-meier", "kaplan_meier", {"time_column": "time", "event_column": "status"}, "--save", table)
        curve = pd.read_parquet(table)
    comparison.check("survival curve", comparison.compare_curve(curve, records))
    comparison.plot(curve, picture)
    console.print(f"  the curve is drawn in {picture}", markup=False)
    console.print(f"All of this took {time.monotonic() - began:.0f} s.", style="bold")
    return made


def suggest(_made: Network) -> None:
    """What to try next."""
    console.print("Next: scripts/demo --keep leaves the network up for you to try; README.md has a tour by hand.")


def keep(made: Network) -> None:
    """How to use and end a network that is left up."""
    python = Path(sys.executable).parent
    lines = f"""
The network stays up. In another shell:

  export PATH={python}:$PATH VANTAGE_CONFIG_DIR={made.config_of(RESEARCHER)}
  vantage whoami
  vantage node list
  vantage task run --image {made.images["summary"]} \\
      --function partial_summary --organization hilda --dataset df=lung --arguments '{{"columns": ["age"]}}'

From elsewhere on this machine, log in as {RESEARCHER} with the password {made.passwords[RESEARCHER]}
or as root with the password {made.passwords["root"]}:

  vantage login --server {made.address} --fingerprint {made.fingerprint} --username {RESEARCHER}

Stop and remove it all: scripts/demo --stop"""
    console.print(lines, markup=False)


def remove(directory: Path) -> None:
    """Stop and remove everything of a demo."""
    Services(directory).stop()
    state = directory / STATE
    if state.exists():
        registry = json.loads(state.read_text())["registry"]
        network.remove_images([f"{registry}/algorithms/{name}" for name in EXAMPLES])
    shutil.rmtree(directory, ignore_errors=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

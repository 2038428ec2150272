"""The command ``vantage``: finds a command, runs it, and turns whatever it raises into one line and an exit code.

Nothing but click is imported until a command is known: ``vantage --help`` names every command without loading one.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

try:
    import click
except ModuleNotFoundError:
    sys.exit("Error: the command line is not installed: pip install 'vantage[client]'")

if TYPE_CHECKING:
    from vantage.common.errors import VantageError


class Entry(NamedTuple):
    """Where a command is.

    Attributes:
        module: what is imported to run it.
        attribute: the command within the module.
        help: its one line in ``vantage --help``; a test compares it with the command's own.
        extra: the part of vantage that must be installed for it.
    """

    module: str
    attribute: str
    help: str
    extra: str = "client"


def _client(module: str, attribute: str, text: str) -> Entry:
    return Entry(f"vantage.client.cli.{module}", attribute, text)


COMMANDS = {
    "apply": _client("network", "apply", "Bring the server to the state that a file describes."),
    "audit": _client("audit", "audit", "Who asked what, and what was decided."),
    "bootstrap": _client("login", "bootstrap", "Create the first user of a new server, and log in."),
    "collaboration": _client("collaborations", "collaboration", "Organizations that agreed to compute together."),
    "completion": _client("completion", "completion", "Print a script that completes commands in your shell."),
    "dataset": _client("datasets", "dataset", "What nodes offer to algorithms."),
    "export": _client("network", "export", "Print what the server has, as far as you see it, for 'vantage apply'."),
    "identity": _client("identities", "identity", "Who you are at the server's identity provider."),
    "image": _client("image_commands", "image", "Sign, verify, review and move algorithm images."),
    "key": _client("keys", "key", "Keys that sign what you ask and open what is answered."),
    "login": _client("login", "login", "Log in with a password, or at an identity provider."),
    "logout": _client("login", "logout", "End the session."),
    "node": Entry("vantage.node.cli", "node", "Run a node beside a data set, and manage nodes."),
    "organization": _client("organizations", "organization", "Organizations and their certificate authorities."),
    "password": _client("password", "password", "Change your password."),
    "profile": _client("profiles", "profile", "Servers that you use."),
    "relay": Entry("vantage.server.relay.cli", "relay", "Run a relay of its own.", "server"),
    "role": _client("roles", "role", "Roles and what they permit."),
    "server": Entry("vantage.server.cli", "server", "Run a server.", "server"),
    "session": _client("sessions", "session", "Where you are logged in."),
    "study": _client("studies", "study", "Named subsets of a collaboration's members."),
    "task": _client("tasks", "task", "Ask questions and read the answers."),
    "totp": _client("totp", "totp", "One-time codes of an app at each log-in."),
    "trust": _client("trust", "trust", "Whose certificates you believe: who signed an answer."),
    "user": _client("users", "user", "Users of organizations."),
    "version": _client("version", "version", "Print the version."),
    "whoami": _client("login", "whoami", "Tell who you are and what you may do."),
}
ALIASES = {"org": "organization"}

_PROBES = {"client": "rich", "server": "sqlalchemy", "node": "docker"}
"""A library of each part: where it is missing, the part is not installed."""


class Root(click.Group):
    """The top of the command tree."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands of the parts that are installed."""
        return sorted(name for name, entry in COMMANDS.items() if _installed(entry.extra))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        if not _installed(entry.extra):
            raise click.ClickException(
                f"vantage {cmd_name} is not installed here: pip install 'vantage[{entry.extra}]'"
            )
        command: click.Command = getattr(importlib.import_module(entry.module), entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = [(name, COMMANDS[name].help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, *arguments: Any, **options: Any) -> NoReturn:
        """Run a command and exit: errors are one line (or JSON) on stderr, never a traceback."""
        given = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        code = 0
        try:
            result = super().main(given, *arguments, **options)
            code = result if isinstance(result, int) else 0
        except click.exceptions.Abort as problem:
            code = _report(given, str(problem) or "interrupted", "INTERRUPTED", 130)
        except click.exceptions.NoArgsIsHelpError as problem:
            click.echo(problem.format_message(), err=True)
            code = problem.exit_code
        except click.UsageError as problem:
            code = _report(given, _usage(problem), "USAGE", problem.exit_code)
        except click.ClickException as problem:
            code = _report(given, problem.format_message(), "FAILED", problem.exit_code)
        except BrokenPipeError:
            # Whoever read the output has seen enough, as 'head' does: say nothing, not even at the last flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 128 + signal.SIGPIPE
        except Exception as problem:  # noqa: BLE001  # the last place: a traceback helps nobody who uses the command
            code = _problem(given, problem)
        sys.exit(code)


def _problem(given: Sequence[str], problem: Exception) -> int:
    from vantage.common import exits
    from vantage.common.errors import VantageError

    if isinstance(problem, VantageError):
        return _report(given, _hinted(problem), problem.reason.name, exits.exit_code(problem), problem.metadata)
    if isinstance(problem, ModuleNotFoundError) and (problem.name or "vantage").split(".")[0] != "vantage":
        extra = "client" if given[:1] not in (["node"], ["server"]) else given[0]
        text = f"{problem.name} is not installed: pip install 'vantage[{extra}]'"
        return _report(given, text, "CONFIGURATION_INVALID", exits.FAILED)
    if isinstance(problem, OSError) and problem.filename is not None:
        return _report(given, f"{problem.filename}: {problem.strerror}", "FAILED", exits.FAILED)
    if os.environ.get("VANTAGE_DEBUG"):
        raise problem
    text = f"a fault of vantage itself, {type(problem).__name__}: {problem}: report it; VANTAGE_DEBUG=1 shows where"
    return _report(given, text, "INTERNAL", exits.FAILED)


def _hinted(problem: VantageError) -> str:
    """The message, with the command that helps where the message, which also other clients read, cannot name it."""
    from vantage.common.errors import Reason

    log_in = (Reason.UNAUTHENTICATED, Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED, Reason.TOKEN_REUSED)
    if problem.reason in log_in and "vantage login" not in problem.message:
        return f"{problem.message}: run 'vantage login'"
    return problem.message


def _usage(problem: click.UsageError) -> str:
    text = problem.format_message().rstrip(".")
    context = problem.ctx
    return f"{text}: see '{context.command_path} --help'" if context is not None else text


def _report(given: Sequence[str], text: str, reason: str, code: int, metadata: dict[str, str] | None = None) -> int:
    if wants_json(given):
        document = {"error": {"reason": reason, "message": text, "metadata": metadata or {}, "exit_code": code}}
        click.echo(json.dumps(document), err=True)
    else:
        from vantage.common.text import printable

        click.echo(f"Error: {printable(text)}", err=True)
    return code


def wants_json(given: Sequence[str]) -> bool:
    """Whether the command line, right or wrong, asks for JSON."""
    for flag, value in zip(given, [*given[1:], ""], strict=True):
        if flag in ("--output=json", "-ojson") or (flag in ("--output", "-o") and value == "json"):
            return True
        if flag.startswith("--output") or flag == "-o":
            return False
    return os.environ.get("VANTAGE_OUTPUT") == "json"


def _installed(extra: str) -> bool:
    return extra not in _PROBES or importlib.util.find_spec(_PROBES[extra]) is not None


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Documentation of all commands and exit codes: docs/cli.md",
)
def vantage() -> None:
    """Federated analysis: questions travel to the data, only answers leave."""


def main() -> NoReturn:
    """Entry point."""
    vantage.main(prog_name="vantage")


if __name__ == "__main__":
    main()

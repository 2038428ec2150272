"""``vantage task run``, and waiting for a task."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli.asking import DurationType, parse_arguments, parse_targets
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import short

if TYPE_CHECKING:
    from vantage.client import Client, TaskHandle
    from vantage.client.cli.progress import Transfers

LOG = click.option("--log", "logs", is_flag=True, help="Show what algorithms print, where nodes let it out.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
SAVE = click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the answer there instead of printing it; a directory when several organizations answer. Tables: "
    ".parquet, .csv, else Arrow.",
)
INTO = click.option(
    "--into",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIRECTORY",
    help="Write the answers there as they are, one file each, of any size, instead of printing them.",
)
SEALED = click.option(
    "--sealed",
    is_flag=True,
    help="With --save or --into: verify the answers and keep them sealed, as files that age opens.",
)
UNVERIFIED = click.option(
    "--unverified", is_flag=True, help="Take the server's word for a task for which you have signed no order."
)


@command(
    None,
    "run",
    "vantage task run --image registry.example.org/algorithms/summary@sha256:HEX --function partial_summary \\",
    '    --organization clara --organization hilda --dataset df=lung --arguments \'{"columns": ["age"]}\'',
    "vantage task run --image IMAGE --function summary --organization clara/clara-1 --arguments @ask.json --detach",
    "vantage task run --image IMAGE --function count --organization clara --organization hilda \\",
    "    --dataset df=lung --dataset hilda:df=lung-2024 --arguments-for hilda='{\"min_count\": 20}'",
    "vantage task run --image IMAGE --function count --organization clara --dataset 'df=registry:adults?min_age=50'",
    "vantage task run --image IMAGE --function score --organization clara --dataset df=lung --file model=weights.bin",
)
@click.option("--image", required=True, help="By digest; a tag is looked up in its registry first.")
@click.option("--function", required=True, metavar="NAME", help="Function that the image declares.")
@click.option("--arguments", default="{}", metavar="JSON|@FILE", help="Its arguments, a JSON object; @- reads stdin.")
@click.option(
    "--organization",
    "organizations",
    multiple=True,
    required=True,
    metavar="ORG[/NODE]",
    help="Who is asked; repeatable. Without NODE, any node of the organization.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="[ORG:]PARAM=NAME[:QUERY?KEY=VALUE]",
    help="Which dataset a data parameter reads, at all or at one organization, and what it is asked; repeatable.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="[ORG:]PARAM=PATH",
    help="A file of yours that a data parameter reads in place of a dataset; repeatable.",
)
@click.option(
    "--arguments-for",
    "overrides",
    multiple=True,
    metavar="ORG=JSON|@FILE",
    help="Arguments for one organization in place of --arguments; repeatable.",
)
@click.option("--collaboration", metavar="NAME", help="Not needed by members of just one.")
@click.option("--study", default="", metavar="NAME", help="Ask within a study of the collaboration.")
@click.option("--no-subtasks", is_flag=True, help="The algorithm may ask nobody in your name.")
@click.option("--title", default="", help="For people.")
@click.option("--timeout", type=DurationType(), metavar="DURATION", help="E.g. 90s, 30m, 12h; the server's without it.")
@click.option(
    "--max-runtime",
    type=DurationType(),
    metavar="DURATION",
    help="How long the algorithm may take at each organization; as long as its node allows without it.",
)
@click.option(
    "--quorum",
    type=click.IntRange(1),
    metavar="N",
    help="So many answers suffice: the others are cancelled then. Without it all must answer.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["continue", "cancel-rest"]),
    default="continue",
    show_default=True,
    help="Whether the others go on when an organization gives no answer.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, 10),
    metavar="N",
    help="How often it is tried when nodes are lost or something around the algorithm does not work; 3 without it.",
)
@click.option("--request-id", metavar="UUID", help="Of an earlier call: attach to its task instead of asking again.")
@click.option("--detach", is_flag=True, help="Do not wait: print the task's name.")
@LOG
@QUIET
@SAVE
@INTO
def run_task(
    call: Call,
    image: str,
    function: str,
    arguments: str,
    organizations: tuple[str, ...],
    datasets: tuple[str, ...],
    files: tuple[str, ...],
    overrides: tuple[str, ...],
    collaboration: str | None,
    study: str,
    no_subtasks: bool,
    title: str,
    timeout: timedelta | None,
    max_runtime: timedelta | None,
    quorum: int | None,
    on_failure: str,
    max_attempts: int | None,
    request_id: str | None,
    detach: bool,
    logs: bool,
    quiet: bool,
    save: Path | None,
    into: Path | None,
) -> None:
    """Ask organizations to run a function of an image, and wait for the answers.

    The exit code is 1 when an organization gives no answer; with --quorum, when fewer give one. Ctrl-C ends the
    waiting, not the task.
    """
    import uuid

    from vantage.client import OnFailure
    from vantage.client.cli.progress import Transfers

    one_place(save, into)
    targets, common, sent = parse_targets(organizations, datasets, overrides, files)
    given = parse_arguments(arguments)
    request_id = request_id or str(uuid.uuid4())
    transfers = Transfers(enabled=not quiet)
    with call.client(transfers) as client:
        chosen = collaboration or _only_collaboration(client)
        if "@" not in image:
            image = client.images.resolve(image)
            call.output.note(f"using {image}")
        try:
            with transfers.shown():
                handle = client.tasks.run(
                    image=image,
                    function=function,
                    arguments=given,
                    collaboration=chosen,
                    targets=targets,
                    datasets=common,
                    title=title,
                    timeout=timeout,
                    request_id=request_id,
                    study=study,
                    delegate=not no_subtasks,
                    files=sent,
                    quorum=quorum or 0,
                    on_failure=OnFailure[on_failure.replace("-", "_").upper()],
                    max_runtime=max_runtime,
                    max_attempts=max_attempts,
                )
        except KeyboardInterrupt:
            raise click.exceptions.Abort(
                f"interrupted before the server answered: the same command with --request-id {request_id} attaches to "
                "the task if there is one"
            ) from None
        if detach:
            call.output.done(handle.name, {"task": handle.name, "state": handle.state, "request_id": request_id})
            if not call.output.is_json:
                call.output.note(f"attach with: vantage task watch {short(handle.name)}")
            return
        wait(call, handle, transfers, logs=logs, quiet=quiet, save=save, into=into, quorum=quorum or 0)


def one_place(save: Path | None, into: Path | None) -> None:
    """See that answers are wanted in one place: before a question is asked for nothing.

    Raises:
        UsageError: they are wanted in two.
    """
    if save is not None and into is not None:
        raise click.UsageError("--save and --into both say where the answers go: give one of them")


def wait(
    call: Call,
    handle: TaskHandle,
    transfers: Transfers,
    *,
    logs: bool,
    quiet: bool,
    save: Path | None,
    into: Path | None,
    unverified: bool = False,
    quorum: int | None = None,
) -> None:
    """Show a task until it has ended, then its answers; ``quorum`` where it is known, not only the server's word."""
    from vantage.client.cli.answers import show
    from vantage.client.cli.progress import display, follow

    try:
        with display(call.output, quiet=quiet) as shown:
            follow(handle.events(), shown, logs=logs)
        with transfers.shown():
            results = handle.results(unverified=unverified, into=into)
    except KeyboardInterrupt:
        name = short(handle.name)
        raise click.exceptions.Abort(
            f"interrupted: the task goes on; attach with 'vantage task watch {name}', end it with "
            f"'vantage task cancel {name}'"
        ) from None
    needed = handle.task.quorum if quorum is None else quorum
    show(call.output, handle.name, handle.state.name, results, save, quorum=needed)


def _only_collaboration(client: Client) -> str:
    found = client.auth.whoami().collaborations
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(short, found))
    raise click.UsageError(
        f"give --collaboration: your organization is a member of {names}"
        if found
        else "your organization is a member of no collaboration: ask its admin, or give --collaboration"
    )

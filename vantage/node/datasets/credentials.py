"""Credentials of services: from the admin's file to the run that asked for the dataset, and to nobody else."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from vantage.common.errors import Reason, error
from vantage.node.datasets.folders import make_folder
from vantage.node.datasets.sections import DatasetSection

MAX_PASSWORD = 4_096


def username_of(dataset: DatasetSection) -> str:
    """The role that the url names; empty when it names none."""
    return unquote(dataset.parts.username or "")


def password_of(dataset: DatasetSection) -> str | None:
    """The password, read anew each time, so that it can be changed while the node runs.

    Raises:
        UnavailableError: DATASET_UNAVAILABLE, the file cannot be read.
    """
    if dataset.password_file is None:
        return None
    try:
        with dataset.password_file.open("rb") as file:
            content = file.read(MAX_PASSWORD + 1)
        if len(content) > MAX_PASSWORD:
            raise ValueError
        return content.decode().rstrip("\r\n")
    except (OSError, ValueError) as problem:
        raise error(
            Reason.DATASET_UNAVAILABLE,
            f"the password of the dataset {dataset.name} cannot be read: ask the node's admin to look at password_file "
            f"({type(problem).__name__})",
            dataset=dataset.name,
        ) from None


def hand_over(dataset: DatasetSection, folder: Path) -> None:
    """Write the credentials into a new folder of the run."""
    make_folder(folder)
    for name, value in (("username", username_of(dataset) or None), ("password", password_of(dataset))):
        if value is not None:
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o444)  # whatever the umask is
                file.write(value)

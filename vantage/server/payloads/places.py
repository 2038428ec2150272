"""Where this server keeps payloads, as its configuration says."""

from __future__ import annotations

import configparser
import os
from datetime import timedelta
from pathlib import Path

from vantage.common.errors import Reason, error
from vantage.server.config import ObjectStoreConfig
from vantage.server.payloads.files import PayloadFiles
from vantage.server.payloads.store import PayloadStore

ACCESS_KEY_VARIABLE = "AWS_ACCESS_KEY_ID"
SECRET_KEY_VARIABLE = "AWS_SECRET_ACCESS_KEY"  # noqa: S105  # a name
_TIMEOUT = timedelta(seconds=30)
_RETRIES = 3


def open_store(data: Path, config: ObjectStoreConfig | None) -> PayloadStore:
    """The place of payloads; ``start`` it before use.

    Raises:
        ConfigurationError: there are no credentials.
    """
    if config is None:
        return PayloadFiles(data / "payloads")
    # Here: servers without a bucket need none of it.
    from obstore.store import S3Store

    from vantage.server.payloads.objects import ObjectPayloads

    key, secret = _credentials(data, config)
    bucket = S3Store(
        config.bucket,
        endpoint=config.endpoint,
        region=config.region,
        access_key_id=key,
        secret_access_key=secret,
        virtual_hosted_style_request=False,
        client_options={"allow_http": config.endpoint.startswith("http://"), "timeout": _TIMEOUT},
        retry_config={"max_retries": _RETRIES, "retry_timeout": _TIMEOUT},
    )
    return ObjectPayloads(bucket, config.prefix)


def _credentials(data: Path, config: ObjectStoreConfig) -> tuple[str, str]:
    """From the file that the configuration names, else from the environment."""
    if config.credentials is None:
        key, secret = os.environ.get(ACCESS_KEY_VARIABLE, ""), os.environ.get(SECRET_KEY_VARIABLE, "")
        where = f"{ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE}"
    else:
        path = data / config.credentials
        where = str(path)
        try:
            if path.stat().st_mode & 0o077:
                raise error(Reason.CONFIGURATION_INVALID, f"{path} can be read by others: chmod 600 it")
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_string(path.read_text("utf-8"))
        except OSError as problem:
            raise error(Reason.CONFIGURATION_INVALID, f"{path} cannot be read: {problem.strerror}") from None
        except (configparser.Error, UnicodeDecodeError):
            # The library's message repeats the line, which may hold the secret.
            raise error(Reason.CONFIGURATION_INVALID, f"{path} is not a file of credentials") from None
        section = next(iter(parser.sections()), "")
        key, secret = (
            parser.get(section, name.lower(), fallback="") for name in (ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE)
        )
    if not key or not secret:
        raise error(
            Reason.CONFIGURATION_INVALID, f"there are no credentials for the bucket {config.bucket}: give {where}"
        )
    return key, secret

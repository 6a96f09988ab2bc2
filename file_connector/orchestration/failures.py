"""Where our errors become Dagster's, and the only place: what was seen, what to do, no secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from file_connector.deployment import redacted_traceback
from file_connector.errors import FileConnectorError, TransientError, one_line, redact

log = logging.getLogger(__name__)


@contextmanager
def told_to_dagster(endpoint_id: str | None = None) -> Iterator[None]:
    """Turns our errors into dg.Failure with what was seen and what to do, and any other error into
    one with a redacted traceback; neither carries the original, which may quote a secret.

    Args:
        endpoint_id: whose work it is, if it is that of one endpoint.
    """
    try:
        yield
    except dg.Failure:
        raise
    except FileConnectorError as error:
        error.endpoint = error.endpoint or endpoint_id
        failure = _failure(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, its text must be redacted first
        log.error("%s", redacted_traceback(type(error), error, error.__traceback__))
        failure = dg.Failure(
            f"{type(error).__name__}: {one_line(redact(error))}. This is a mistake of File"
            " Connector; please report it with the traceback below.",
            metadata={"traceback": dg.MetadataValue.md(_code_block(error))},
            allow_retries=False,
        )
    else:
        return
    raise failure from None


def _failure(error: FileConnectorError) -> dg.Failure:
    passes = isinstance(error, TransientError)
    otherwise = "None needed: the next run tries again." if passes else "Mend what was seen."
    return dg.Failure(
        redact(error),
        metadata={
            "error": type(error).__name__,
            "seen": one_line(redact(error.message)),
            "remedy": error.remedy or otherwise,
        },
        allow_retries=False,
    )


def _code_block(error: BaseException) -> str:
    text = redacted_traceback(type(error), error, error.__traceback__)
    return "```\n" + text[-4000:].replace("```", "'''") + "\n```"

"""What clients see of errors: a stable code and a plain sentence, never what is inside.

An error that nobody expected becomes INTERNAL with a correlation id; the log has the rest under the same id.
"""

from __future__ import annotations

from typing import Final

import asyncpg
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from graphql import GraphQLError

from gateway.cursors import BadCursor
from gateway.inputs import BadInput
from streams.errors import Transient
from streams.ids import new_id
from streams.telemetry import log

logger = log(__name__)
BAD_INPUT: Final = "BAD_USER_INPUT"
INTERNAL: Final = "INTERNAL"
UNAVAILABLE: Final = "UNAVAILABLE"
_UNAVAILABLE: Final = UNAVAILABLE, "A part of the platform does not answer at the moment: try again in some seconds."


class ApiError(Exception):
    """An error that is meant for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def coded(message: str, code: str) -> GraphQLError:
    """A GraphQL error of ours outside of resolvers: limits, protocol."""
    return GraphQLError(message, extensions={"code": code})


def with_code(error: GraphQLError, code: str) -> GraphQLError:
    """The same error with a code, unless it has one."""
    if error.extensions is None:
        error.extensions = {}
    error.extensions.setdefault("code", code)
    return error


def of_client(cause: BaseException) -> tuple[str, str] | None:
    """Code and sentence for causes that clients may know of."""
    match cause:
        case ApiError(code=code, message=message) | BadInput(code=code, message=message):
            return code, message
        case BadCursor():
            return (
                "BAD_CURSOR",
                "The cursor is not of this list or stream: take one from an answer, or leave it out to begin anew.",
            )
        case asyncpg.PostgresConnectionError() | asyncpg.CannotConnectNowError() | asyncpg.InterfaceError() | OperationalError():
            return _UNAVAILABLE
        case KafkaError() | OSError() | TimeoutError() | Transient():
            return _UNAVAILABLE
        case asyncpg.UndefinedTableError():  # a read model that no worker has made yet
            return _UNAVAILABLE
        case ClickHouseError() if "UNKNOWN_TABLE" in str(cause):  # likewise
            return _UNAVAILABLE
        case _:
            return None


def format_error(error: GraphQLError, debug: bool = False) -> dict[str, object]:
    """The error as it stands in a response. `debug` is Ariadne's and changes nothing: internals are never shown."""
    del debug
    cause: BaseException | None = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if cause is None or isinstance(cause, GraphQLError):
        return dict(with_code(error, BAD_INPUT).formatted)
    formatted: dict[str, object] = {"message": ""}
    if error.locations is not None:
        formatted["locations"] = [location.formatted for location in error.locations]
    if error.path is not None:
        formatted["path"] = error.path
    known = of_client(cause)
    if known is not None:
        formatted["message"], formatted["extensions"] = known[1], {"code": known[0]}
        if known[0] == UNAVAILABLE:
            logger.warning("a part does not answer", error=repr(cause), path=error.path)
        return formatted
    correlation_id = str(new_id())
    logger.error("unexpected error", correlation_id=correlation_id, path=error.path, exc_info=cause)
    formatted["message"] = "Something went wrong here. It was recorded; name the correlation id when you ask about it."
    formatted["extensions"] = {"code": INTERNAL, "correlationId": correlation_id}
    return formatted

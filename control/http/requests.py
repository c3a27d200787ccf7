"""From bytes to checked values. Everything a client can get wrong ends in an `ApiError` that names
the part that is wrong.
"""

import asyncio
import json
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from control.http.errors import ApiError
from engine.base.wrong_input import explain

BODY_BYTES_MAX = 1 << 20
_QUERY_FIELDS_MAX = 50

Value = TypeVar("Value")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def must_be_waited_for(request: Request) -> None:
    """Raise ClientGoneError where the client has hung up: scrapes that were given up while control
    was away wait in the queue of the socket, and would hold up those that are not.
    """
    for _ in range(2):  # turns of the loop, in which the end behind the request is read
        await asyncio.sleep(0)
    if await request.is_disconnected():
        raise ClientGoneError


async def read_body(request: Request) -> bytes:
    """The body, of which no more than `BODY_BYTES_MAX` are ever held."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > BODY_BYTES_MAX:
        raise _too_large()
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def parse_json(body: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN, no key twice."""
    if not body:
        raise ApiError("invalid_argument", "a JSON body is needed", field="body")
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        text = f"the body is not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        text = f"the body is not JSON: {error.msg} (byte {error.pos})"
    except RecursionError:
        text = "the body is nested too deeply"
    except ValueError as error:  # digits without end
        text = f"the body is not usable: {str(error)[:120]}"
    raise ApiError("invalid_argument", text, field="body")


def checked(value: object, kind: type[Value], *, strict: bool = True) -> Value:
    """`value` as a `kind`, or a 400 that names the field."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        field, text = explain(str(error), kind)
        raise ApiError("invalid_argument", f"{field or 'body'}: {text}", field=field) from None
    except (RecursionError, OverflowError, UnicodeEncodeError):  # the last: half a character
        raise ApiError("invalid_argument", "the value is out of bounds") from None


def query(request: Request, kind: type[Value]) -> Value:
    """The query string as a `kind`; unknown and repeated fields are refused."""
    raw = request.scope.get("query_string", b"")
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict",
            max_num_fields=_QUERY_FIELDS_MAX,
        )  # fmt: skip
    except ValueError:
        raise ApiError("invalid_argument", "the query string is malformed", field="query") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise ApiError("invalid_argument", f"{name[:64]}: given twice", field=name[:64])
        if value.lower() == "null":  # which `strict=False` would read as "not given"
            raise ApiError("invalid_argument", f"{name[:64]}: not a value", field=name[:64])
        values[name] = value
    return checked(values, kind, strict=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ApiError("invalid_argument", f"{name[:64]}: given twice", field=name[:64])
        found[name] = value
    return found


def _number(text: str) -> float | int:
    """In a schema `1.0` is an integer."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _no_constant(name: str) -> Any:
    raise ApiError("invalid_argument", f"{name} is not JSON", field="body")


def _too_large() -> ApiError:
    return ApiError(
        "body_too_large",
        f"a body has at most {BODY_BYTES_MAX} bytes",
        headers={"Connection": "close"},
    )

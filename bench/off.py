"""Turns the tricks of `docs/design.md` off: puts a plain way in a trick's place.

The names are looked up when they are needed, so `turn_off` fails if a trick has moved.
"""

import asyncio
import functools
import gc
import math
import pkgutil
import uuid
from collections.abc import Mapping
from typing import Any

from tornado import web
from tornado.httputil import HTTPHeaders
from tornado.log import LogFormatter, access_log

from bench.visitors import JSON, KEPT, LOGGED, NEW

_INTERNALS = "http1.tornado_internals"


@functools.cache
def _found(name: str) -> Any:
    return pkgutil.resolve_name(name)


def _clear(handler: Any) -> None:
    web.RequestHandler.clear(handler)
    handler.clear_header("Server")
    for name, value in handler.HEADERS.items():
        handler.set_header(name, value)


def _answer_headers(common: Any, own: Any) -> Any:
    return _found(f"{_INTERNALS}.CheckedHeaders")(common.by_name | own)


def _request(connection: Any, server: Any, line: Any, headers: Any, host: str) -> Any:
    return _found(f"{_INTERNALS}.Request")(
        connection=connection, server_connection=server, start_line=line, headers=headers
    )


def _headers(head: Any) -> HTTPHeaders:
    found = HTTPHeaders()
    for name, values in head.fields.items():
        for value in values:
            found.add(name, value)
    return found


def _parse(head: bytes) -> Any:
    return _found("http1.head._parse")(head)


def _request_id(headers: HTTPHeaders) -> str:
    return headers.get("X-Request-Id") or uuid.uuid4().hex


def _finish(delegate: Any) -> None:
    handler = _found("http1.web.new_handler")(delegate.router, delegate._rule, delegate._request)
    handler._prepared_future, handler._auto_finish = None, True
    execute = functools.partial(handler._execute, handler._transforms)
    _found("http1.web.EagerTask")(execute, lambda error: None)


def _new_handler(application: Any, rule: Any, request: Any) -> Any:
    handler = rule.target(application, request, **rule.target_kwargs)
    handler._transforms = [transform(request) for transform in application.transforms]
    return handler


def _as_task(begin: Any, on_end: Any) -> None:
    async def run() -> None:
        try:
            await begin()
        except Exception as error:
            on_end(error)
        else:
            on_end(None)

    asyncio.get_running_loop().create_task(run())


def _init_formatter(formatter: Any) -> None:
    LogFormatter.__init__(formatter)
    formatter._before = formatter._format_before


def _record(handler: Any, level: int, said: str, milliseconds: float) -> Any:
    file, line, function, stack = access_log.findCaller()
    name = access_log.name
    made = access_log.makeRecord(name, level, file, line, said, (), None, function, None, stack)
    made.method = handler.request.method
    made.path = _found("watch.logs.shortened")(handler.request.path)
    made.status, made.duration_ms = handler.get_status(), round(milliseconds, 3)
    made.remote, made.request_id = handler.request.remote_ip, handler.request_id
    if parent := _found("watch.logs._traceparent")(handler.request.headers):
        made.traceparent = parent
    return made


#: For each trick, the kind of page that it makes cheaper, and what is put in the place of a name.
TRICKS: dict[str, tuple[str, dict[str, Any]]] = {
    "common_headers": (KEPT, {f"{_INTERNALS}.RequestHandler.clear": _clear}),
    "common_lines": (KEPT, {f"{_INTERNALS}.AnswerHeaders": _answer_headers}),
    "whole_answer": (KEPT, {f"{_INTERNALS}.RequestHandler.finish": web.RequestHandler.finish}),
    "known_heads": (KEPT, {"http1.head._parse_cached": _parse}),
    "path_requests": (KEPT, {"http1.web.PathRequest": _request}),
    "checked_headers": (KEPT, {"http1.head.Head.headers": _headers}),
    "missing_headers": (KEPT, {f"{_INTERNALS}.CheckedHeaders.get": Mapping.get}),
    "request_id": (KEPT, {"handlers.base._request_id": _request_id}),
    "direct_call": (KEPT, {"http1.web._EagerDelegate.finish": _finish}),
    "short_init": (KEPT, {"http1.web.new_handler": _new_handler}),
    "eager_start": (KEPT, {"http1.web.EagerTask": _as_task}),
    "less_garbage": (KEPT, {"server.collect_less_garbage": gc.enable}),
    "open_at_once": (NEW, {"http1.server.EagerTask": _as_task}),
    "first_look": (
        NEW,
        {
            "http1.first_look.FirstLook.add": lambda looks, connection: math.inf,
            "http1.first_look.FirstLook.discard": lambda looks, connection: None,
        },
    ),
    "lines_of_a_turn": (
        LOGGED,
        {"watch.logs._TurnHandler._schedule": lambda handler: handler.flush()},
    ),
    "no_record": (LOGGED, {"watch.logs._text_handler": lambda: None}),
    "known_time": (LOGGED, {"watch.logs._TextFormatter.__init__": _init_formatter}),
    "known_record": (JSON, {"watch.logs._record": _record}),
}


def turn_off(trick: str) -> None:
    """Turn a trick off in this process, for ever.

    :raises AttributeError: when a name is no longer where the trick had it.
    """
    _, plain = TRICKS[trick]
    for name, value in plain.items():
        owner, _, attribute = name.rpartition(".")
        pkgutil.resolve_name(name)
        setattr(pkgutil.resolve_name(owner), attribute, value)

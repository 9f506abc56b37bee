"""No page's handler outlives its answer, and no garbage collector is needed for that."""

import asyncio
import gc

import pytest
from tornado.testing import bind_unused_port
from tornado.web import RequestHandler

import server
from config import Settings
from counter import Visits
from tests.handlers.test_stock_tornado import PATHS, ask
from tests.support.waiting import eventually


def handlers() -> int:
    return sum(isinstance(one, RequestHandler) for one in gc.get_objects())


@pytest.mark.gen_test
async def test_no_handler_is_left_of_any_page() -> None:
    settings = Settings(access_log=False, faults=True)
    visits = Visits("unix:///nowhere/redis.sock")
    running = server.new_server(settings, server.make_app(settings, visits))
    listening, port = bind_unused_port()
    running.add_socket(listening)
    requests = [
        (method, path)
        for method in ("GET", "POST", "BREW")
        for paths in PATHS.values()
        for path in paths
        if path != "/?wait=1m"
    ]
    try:
        for request in requests:  # what is made once is made
            await ask(port, *request, "*/*")
        gc.collect()
        gc.disable()
        before = handlers()
        for request in requests:
            await ask(port, *request, "*/*")
        await eventually(lambda: handlers() <= before, 10)
    finally:
        gc.enable()
        running.stop()
        await running.close_all_connections()
        await visits.close()
    await asyncio.sleep(0)

"""Starlette; uvicorn serves it."""

from page import connect, hello
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

redis = connect()


async def index(request):
    return HTMLResponse(await hello(redis))


app = Starlette(routes=[Route("/", index)])

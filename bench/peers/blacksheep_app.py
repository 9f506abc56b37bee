"""BlackSheep; Granian serves it."""

from blacksheep import Application, get, html
from page import connect, hello

app = Application()
redis = connect()


@get("/")
async def index():
    return html(await hello(redis))

"""FastAPI; uvicorn serves it."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from page import connect, hello

app = FastAPI()
redis = connect()


@app.get("/", response_class=HTMLResponse)
async def index():
    return await hello(redis)

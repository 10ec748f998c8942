"""One web service in each framework, as `service` is in none: each function makes an application that logs
each request it answers. Only the framework that is asked for is imported.
"""

import asyncio
import os
import time
from typing import Any

from honeyhive_batcher import Batcher, BlockingBatcher


def _log(batcher: Batcher | BlockingBatcher, path: str) -> str:
    batcher.push({"model_name": path.removeprefix("/")})
    return f"{os.getpid() % 10_000:4}"


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(request: Request) -> PlainTextResponse:
        await asyncio.sleep(0.002)
        return PlainTextResponse(_log(request.state.batcher, request.url.path))

    batcher = Batcher.from_env(flush_interval=0.2)
    return Starlette(routes=[Route("/{name}", answer)], lifespan=batcher.lifespan)


def fastapi() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    batcher = Batcher.from_env(flush_interval=0.2)
    app = FastAPI(lifespan=batcher.lifespan)

    @app.get("/{name}")
    def answer(name: str) -> PlainTextResponse:  # in a thread of a pool
        time.sleep(0.002)
        return PlainTextResponse(_log(batcher, name))

    return app


def litestar() -> Any:
    from litestar import Litestar, MediaType, get

    batcher = Batcher.from_env(flush_interval=0.2)

    @get("/{name:str}", media_type=MediaType.TEXT)
    async def answer(name: str) -> str:
        await asyncio.sleep(0.002)
        return _log(batcher, name)

    return Litestar([answer], lifespan=[batcher.lifespan], openapi_config=None)


def django() -> Any:
    import django as package
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    batcher = Batcher.from_env(flush_interval=0.2)

    async def answer(_request: HttpRequest, name: str) -> HttpResponse:
        await asyncio.sleep(0.002)
        return HttpResponse(_log(batcher, name))

    settings.configure(ROOT_URLCONF=(path("<name>", answer),), ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
    package.setup()
    return batcher.asgi(get_asgi_application(), session="x-session-id")


def quart() -> Any:
    from quart import Quart

    batcher = Batcher.from_env(flush_interval=0.2)
    app = Quart(__name__)

    @app.while_serving
    async def run_batcher() -> Any:
        async with batcher:
            yield

    @app.get("/<name>")
    async def answer(name: str) -> str:
        await asyncio.sleep(0.002)
        return _log(batcher, name)

    return app


def sanic() -> Any:
    from sanic import Sanic
    from sanic.request import Request
    from sanic.response import HTTPResponse, text

    batcher = Batcher.from_env(flush_interval=0.2)
    app: Any = Sanic("service")

    @app.before_server_start
    async def start(_app: Any) -> None:
        await batcher.start()

    @app.after_server_stop
    async def stop(_app: Any) -> None:
        await batcher.aclose()

    @app.get("/<name>")
    async def answer(_request: Request, name: str) -> HTTPResponse:
        await asyncio.sleep(0.002)
        return text(_log(batcher, name))

    return app


def aiohttp_web(_arguments: list[str]) -> Any:
    from aiohttp import web

    batcher = Batcher.from_env(flush_interval=0.2)

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.002)
        return web.Response(text=_log(batcher, request.path))

    app = web.Application()
    app.cleanup_ctx.append(batcher.cleanup_ctx)
    app.router.add_get("/{name}", answer)
    return app


def flask() -> Any:
    from flask import Flask

    batcher = BlockingBatcher.from_env(flush_interval=0.2)
    if "EARLY" in os.environ:
        batcher.push({"model_name": "early"})
    app = Flask(__name__)

    @app.get("/<name>")
    def answer(name: str) -> str:
        time.sleep(0.002)
        return _log(batcher, name)

    return app

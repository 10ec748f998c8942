"""Under real web servers: every request that got its answer has its event, once, however the server is
stopped, and whoever forks whom.
"""

import contextlib
import http.client
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self, TypeAlias

from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.child_process import arrived, compare, environment, unused_port
from tests.reliability.rows import Row, Size

_NOISE = (
    "Task exception was never retrieved",
    "Task was destroyed",
    "Unclosed",
    "events lost",
    "events are lost",
    "events still held",
    "bug of honeyhive_batcher",
)
"""What nobody may read in a server's output."""


class Server:
    """A web server in a process of its own, under a load that lasts until it is gone."""

    def __init__(self, hive: Collector, *command: str, **variables: str) -> None:
        self.hive = hive
        self.port = unused_port()
        self.answered: set[str] = set()
        self.workers: set[bytes] = set()
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._hanging = http.client.HTTPConnection("127.0.0.1", self.port)
        # No pipe: nobody reads while the load lasts, and a server that logs every request would fill it
        # and stand still.
        self._output = tempfile.TemporaryFile("a+")  # noqa: SIM115 - until the end of the load
        self._process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=self.port) for part in command)],
            env=environment(hive, **variables),
            stdout=self._output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a group of its own, all of which a Ctrl-C goes to
        )
        self._clients = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._process.kill()
        self._process.wait()
        for client in self._clients:
            client.join()
        self._hanging.close()
        self._output.close()

    def _ask(self) -> None:
        """Ask one question after another, mostly over the same connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self._is_over.is_set():
            number = next(self._numbers)
            name = f"request-{number}"
            try:
                connection.request("GET", f"/{name}")
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.01)  # it is not up yet, or going down
                continue
            if answer.status == 200:
                self.workers.add(body)
                self.answered.add(name)
            if number % 16 == 0:
                connection.close()  # the next one may come to another worker
        connection.close()

    def wait_for(self, *, answers: int, workers: int = 1) -> None:
        """Wait until so many requests were answered, by so many processes."""
        deadline = time.monotonic() + 60 + answers / 20
        while len(self.answered) < answers or len(self.workers) < workers:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the server does not answer: {self._printed()}")
            time.sleep(0.01)

    def hang(self) -> None:
        """Send a request that keeps the server waiting when it is to stop."""
        self._hanging = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self._hanging.request("GET", "/hang")

    def stop(self, *signals: signal.Signals, pause: float = 0.3) -> str:
        """Stop it in the midst of the load, with one signal after another; return what it printed.

        SIGINT is a Ctrl-C, and goes to its workers as well.
        """
        for number, what in enumerate(signals):
            if number:
                time.sleep(pause)  # a server asks its loop for signals only now and then
            if what is signal.SIGINT:
                with contextlib.suppress(ProcessLookupError):  # it ended at once
                    os.killpg(self._process.pid, what)
            else:
                self._process.send_signal(what)
        self._process.wait(timeout=60)
        self._is_over.set()
        for client in self._clients:
            client.join()
        return self._printed()

    def _printed(self) -> str:
        self._output.seek(0)
        return self._output.read()

    def row(self, what: str, output: str) -> Row:
        """Return how many of the events of answered requests arrived."""
        got = arrived(self.hive)
        lost, _ = compare(got, self.answered)
        doubled = sum(times > 1 for times in got.values())
        noise = [line for line in output.splitlines() if any(part in line for part in _NOISE)]
        return Row(
            bar=15,
            what=what,
            figure=f"{len(self.answered)} answered by {len(self.workers)} processes, {lost} lost, "
            f"{doubled} doubled, {len(noise)} lines of noise",
            bound="0 lost, 0 doubled, no noise",
            holds=bool(self.answered) and not lost and not doubled and not noise,
        )


_UVICORN = ("uvicorn", "service:app", "--port", "{port}", "--timeout-graceful-shutdown", "1")
_HYPERCORN = ("hypercorn", "service:app", "-b", "127.0.0.1:{port}", "--graceful-timeout", "1")
_GUNICORN = ("gunicorn", "service:app", "-b", "127.0.0.1:{port}", "-k", "uvicorn_worker.UvicornWorker")
_RECYCLED = ("-w", "2", "--preload", "--max-requests", "50", "--graceful-timeout", "2")


def _stopped(hive: Collector, *command: str, answers: int, workers: int = 1, what: str = "") -> Iterator[Row]:
    with Server(hive, *command) as server:
        server.wait_for(answers=answers, workers=workers)
        yield server.row(f"{what or command[0]} under load, SIGTERM", server.stop(signal.SIGTERM))


def _interrupted(hive: Collector, *command: str, answers: int) -> Iterator[Row]:
    with Server(hive, *command) as server:
        server.wait_for(answers=answers)
        server.hang()
        output = server.stop(signal.SIGINT, signal.SIGINT)
        yield server.row(f"{command[0]} under load, a request that hangs, Ctrl-C twice", output)


def uvicorn_stopped(hive: Collector, answers: int) -> Iterator[Row]:
    """A deployment."""
    return _stopped(hive, *_UVICORN, answers=answers)


def uvicorn_interrupted(hive: Collector, answers: int) -> Iterator[Row]:
    """A developer in a hurry: the second Ctrl-C makes it skip the end of the lifespan."""
    return _interrupted(hive, *_UVICORN, answers=answers)


def hypercorn_stopped(hive: Collector, answers: int) -> Iterator[Row]:
    """Another server."""
    return _stopped(hive, *_HYPERCORN, answers=answers)


def hypercorn_interrupted(hive: Collector, answers: int) -> Iterator[Row]:
    """And a developer in a hurry."""
    return _interrupted(hive, *_HYPERCORN, answers=answers)


def gunicorn_interrupted(hive: Collector, answers: int) -> Iterator[Row]:
    """The master and its workers all get every Ctrl-C."""
    return _interrupted(hive, *_GUNICORN, "-w", "2", "--graceful-timeout", "2", answers=answers)


def gunicorn_preloaded(hive: Collector, answers: int) -> Iterator[Row]:
    """The workers are forked from a parent that has pushed already, and again when they are worn out."""
    with Server(hive, *_GUNICORN, *_RECYCLED, EARLY="yes") as server:
        server.wait_for(answers=answers, workers=3)
        output = server.stop(signal.SIGTERM)
        told = "a Batcher was never started: 1 events are lost"
        rest = output.replace(told, "", 1)
        yield server.row("gunicorn --preload, workers recycled under load, SIGTERM", rest)
        yield Row(
            bar=16,
            what="an event pushed before gunicorn forks",
            figure=f"sent {arrived(hive)['early']} times, told of {output.count(told)} times",
            bound="sent 0 times, told of once, by the parent",
            holds=(arrived(hive)["early"], output.count(told)) == (0, 1),
        )


def _framework(name: str, what: str, *command: str, workers: int = 1) -> "Part":
    """Return the part in which a framework's service is stopped under a server."""

    def part(hive: Collector, answers: int) -> Iterator[Row]:
        return _stopped(hive, *command, answers=answers, workers=workers, what=what)

    part.__name__ = name
    return part


def _uvicorn(factory: str) -> tuple[str, ...]:
    return ("uvicorn", "--factory", f"frameworks:{factory}", *_UVICORN[2:])


def _granian(factory: str) -> tuple[str, ...]:
    return ("granian", "--interface", "asgi", "--factory", f"frameworks:{factory}", "--port", "{port}")


_SANIC = ("sanic", "frameworks:sanic", "--factory", "--single-process", "--port", "{port}")
_AIOHTTP = ("aiohttp.web", "-H", "127.0.0.1", "-P", "{port}", "frameworks:aiohttp_web")
_FLASK = ("gunicorn", "frameworks:flask()", "-b", "127.0.0.1:{port}", "-w", "2")
_FLASK_THREADS = ("-k", "gthread", "--threads", "4")


def flask_preloaded(hive: Collector, answers: int) -> Iterator[Row]:
    """The parent pushes, which begins its thread, and forks at once."""
    with Server(hive, *_FLASK, "--preload", EARLY="yes") as server:
        server.wait_for(answers=answers, workers=2)
        yield server.row("Flask, gunicorn --preload under load, SIGTERM", server.stop(signal.SIGTERM))
        yield Row(
            bar=16,
            what="an event pushed to a BlockingBatcher before gunicorn forks",
            figure=f"sent {arrived(hive)['early']} times",
            bound="once, by the parent",
            holds=arrived(hive)["early"] == 1,
        )


FRAMEWORKS = (
    flask_preloaded,
    _framework("starlette", "Starlette, uvicorn", *_uvicorn("starlette")),
    _framework("fastapi", "FastAPI, uvicorn --workers 2", *_uvicorn("fastapi"), "--workers", "2", workers=2),
    _framework("litestar", "Litestar, uvicorn", *_uvicorn("litestar")),
    _framework("litestar_granian", "Litestar, granian", *_granian("litestar")),
    _framework("django", "Django, uvicorn", *_uvicorn("django")),
    _framework("django_granian", "Django, granian", *_granian("django")),
    _framework("quart", "Quart, uvicorn", *_uvicorn("quart")),
    _framework("quart_hypercorn", "Quart, hypercorn", "hypercorn", "frameworks:quart()", *_HYPERCORN[2:]),
    _framework("sanic", "Sanic's own server", *_SANIC),
    _framework("aiohttp_web", "aiohttp.web", *_AIOHTTP),
    _framework("flask", "Flask, gunicorn, a BlockingBatcher", *_FLASK, workers=2),
    _framework("flask_threads", "Flask, gunicorn with threads", *_FLASK, *_FLASK_THREADS, workers=2),
)

Part: TypeAlias = Callable[[Collector, int], Iterator[Row]]
PARTS: tuple[Part, ...] = (
    uvicorn_stopped,
    uvicorn_interrupted,
    hypercorn_stopped,
    hypercorn_interrupted,
    gunicorn_interrupted,
    gunicorn_preloaded,
    *FRAMEWORKS,
)


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of all of them, each against a local HoneyHive of its own."""
    for part in PARTS:
        with collector_in_thread() as hive:
            yield from part(hive, 100 if size is Size.QUICK else 5000)

"""A program that uses a batcher, shows everything there is to show of it, and hides nothing itself.

It runs in a process of its own: `python -X dev -W always -m tests.reliability.canary_host`. The cases come
as JSON on stdin, key and content in the environment; all that is logged, warned of, complained about and
shown goes to stdout and stderr, where no trace of key or content may be.
"""

import asyncio
import contextlib
import copy
import gc
import itertools
import json
import logging
import os
import pickle
import pprint
import re
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import msgspec

import honeyhive_batcher
from honeyhive_batcher import (
    Batcher,
    BatcherError,
    ClosedError,
    Config,
    EncodeError,
    EndpointSettings,
    ModelEvent,
)
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Reply, Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.transport import Transport

KEY = os.environ.get("CANARY_KEY", "")
CONTENT = os.environ.get("CANARY_CONTENT", "")


def show(what: str, *things: object) -> None:
    """Show things in every way that does not ask for the secret itself."""
    for thing in things:
        print(what, repr(thing), str(thing), f"{thing}", pprint.pformat(thing))
        if isinstance(thing, BaseException):
            print(what, thing.args, "".join(traceback.format_exception(thing)))


def show_locals(error: BaseException) -> None:
    """Show an exception as error reporters do: with the variables of every frame."""
    print("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))


class Everything(logging.Handler):
    """Shows all of a record: also what no ordinary format does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(record.name.partition(".")[0])
        print("log", record.levelname, record.name, record.getMessage())
        if record.name != "asyncio":  # which has a line for every step of every task
            print(record.args, vars(record))
        if record.exc_info and record.exc_info[1] is not None:
            print(logging.Formatter().formatException(record.exc_info))
            if record.name != "asyncio":
                # In its debug mode it logs an error of the socket out of the frame that writes, and what it
                # writes is a variable there. Nobody but asyncio can change that.
                show_locals(record.exc_info[1])


class Odd:
    """Says its content in whatever it does."""

    def __repr__(self) -> str:
        return CONTENT

    @property
    def model_dump(self) -> Any:
        raise ValueError(CONTENT)

    def __str__(self) -> str:
        raise ValueError(CONTENT)


def events() -> Iterator[Any]:
    """Yield events that hold the content, in each place and in each kind of trouble."""
    cycle: dict[str, Any] = {"content": CONTENT}
    cycle["again"] = cycle
    message = {"role": "user", "content": CONTENT}
    yield {"model": "gpt-4o", "messages": [message], "response": CONTENT, CONTENT: 1}
    yield ModelEvent(model=CONTENT, messages=[message], metadata={"key": KEY})
    yield {"event_id": f"{CONTENT}\r\nX-Echo: {CONTENT}", "project": f"{CONTENT}\n", "session_id": CONTENT}
    yield {"values": [float("nan"), {CONTENT}, Odd(), cycle, f"\ud800{CONTENT}", b"\xff" + CONTENT.encode()]}
    yield {Odd(): 1, (CONTENT, 1): 2, 10**30: CONTENT}


def refuse(*_: object) -> Any:
    raise ValueError(f"{CONTENT} {KEY}")


_AIOHTTPS_OWN = r"wait_for=<Future finished exception=.*"
"""For one turn of the loop aiohttp's parser hands its error, which quotes a malformed answer, to the task
that reads it. Nobody but aiohttp can change that; it is out of sight when the task goes on.
"""


async def use(batcher: Batcher, close_timeout: float = 0.05) -> None:
    """Do with a batcher all that can be done, and show all of it."""
    await batcher.start()
    with batcher.session(session_name=CONTENT, inputs={"text": CONTENT}, user_properties={KEY: 1}) as session:
        show("admission", *[batcher.push(event) for event in itertools.islice(events(), 2)])
        session.outputs = CONTENT
        show("session", session)
    show("admission", *[batcher.push(event) for event in events()])
    show("refusal", batcher.push(CONTENT), batcher.push([CONTENT]), batcher.push({"much": CONTENT * 20_000}))
    for make_wrong in (lambda: CONTENT, lambda: {"much": CONTENT * 20_000}):
        try:
            await batcher.put(make_wrong())
        except (EncodeError, ClosedError) as error:
            show("put", error)  # the argument itself is among the variables: that cannot be helped
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        print("task", re.sub(_AIOHTTPS_OWN, "", repr(task)))
    show("flush", await batcher.flush(timeout=30))
    show("batcher", batcher, batcher.config, batcher.statistics())
    print(msgspec.json.encode(batcher.statistics()), batcher.statistics().last_error)
    await batcher.aclose(timeout=close_timeout)
    show("closed", batcher, batcher.statistics(), batcher.push({"model": CONTENT}), vars(batcher))
    try:
        await batcher.put({"model": "gpt-4o"})
    except BatcherError as error:
        show("put", error)
        show_locals(error)


def settings(**more: Any) -> dict[str, Any]:
    """Return settings with which every trouble comes soon."""
    return {
        "api_key": KEY,
        "flush_interval": 0.0,
        "max_retries": 1,
        "backoff_base": 0.002,
        "max_event_bytes": 100_000,
        "max_elapsed": 0.05,
        "request_timeout": 30.0,
        "on_delivered": refuse,
        "on_dropped": refuse,
        "on_unconfirmed": refuse,
        **more,
    }


class BadTransport(Transport):
    """Answers always the same, or raises with all that it knows in the message."""

    def __init__(self, reply: Response | None, *, closes: bool = True) -> None:
        self._reply = reply
        self._closes = closes

    async def open(self) -> None:
        pass

    async def send(self, request: Request) -> Reply:
        if self._reply is None:
            raise RuntimeError(f"{KEY} {request.body!r}")
        return self._reply

    async def close(self) -> None:
        if not self._closes:
            raise RuntimeError(f"{KEY} {CONTENT}")


def over(transport: BadTransport) -> Batcher:
    """Make a batcher that sends with it."""
    return Batcher(**settings(), _seams=Seams(transport=lambda _: transport))


async def fail_within() -> None:
    """Let the batcher itself fail, everywhere."""
    echo = Response(status=500, body=f'{{"errors":["{CONTENT}"]}}'.encode())
    for kind, name in ((Engine, "poll"), (Engine, "complete"), (Intake, "settle"), (Engine, "wake_at")):
        with mock.patch.object(kind, name, refuse):
            batcher = over(BadTransport(echo))
            batcher.push(next(iter(events())))  # for a worker that fails at its first step
            await use(batcher)
    for closes in (True, False):
        await use(over(BadTransport(None, closes=closes)))
    await use(Batcher(**settings(before_send=refuse, base_url="http://localhost:9")))


async def forget() -> None:
    """Let go of batchers that hold events, started and not."""
    for is_started in (True, False):
        batcher = Batcher(**settings(base_url="http://localhost:9", shutdown_timeout=0.05))
        if is_started:
            await batcher.start()
        batcher.push({"model": CONTENT})
        batcher.session(session_name=CONTENT)
        del batcher
        gc.collect()
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - nobody can wait for what was forgotten
            await asyncio.sleep(0.01)


async def cancel(url: str) -> None:
    """Cancel everything while requests are on their way, and look at it meanwhile."""
    batcher = Batcher(**settings(base_url=url, request_timeout=30.0))
    await batcher.start()
    for event in events():
        batcher.push(event)
    async with asyncio.timeout(30):
        while not batcher.statistics().in_flight:  # noqa: ASYNC110 - it goes over sockets
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    me = asyncio.current_task()
    for task in asyncio.all_tasks() - {me}:
        print("cancelled", task)
        task.print_stack(file=sys.stdout)
        task.cancel()
    await batcher.aclose(timeout=0.05)
    show("closed", batcher, batcher.statistics())


def complain() -> None:
    """Give wrong settings, and show the complaints as error reporters do."""
    attempts: list[Callable[[], object]] = [
        lambda: Batcher(api_key=KEY, base_url="ftp://h"),
        lambda: Batcher(api_key=KEY, max_retries=-1),
        lambda: Batcher(api_key=KEY, nonsense=1),  # type: ignore[call-arg]  # on purpose
        lambda: Batcher(api_key=f"{KEY}\n"),
        lambda: Batcher(api_key=KEY.encode()),  # type: ignore[arg-type]  # on purpose
        lambda: Batcher(base_url=KEY),
        lambda: Batcher(api_key="x", base_url=f"https://me:{KEY}@h"),
        lambda: Batcher(api_key="x", base_url=f"https://me:{KEY}%40h"),
        lambda: Batcher(api_key="x", base_url=f"https://h?key={KEY}"),
        lambda: Batcher(api_key="x", base_url=f"https://h/#{KEY}"),
        lambda: Config.of(api_key=[KEY]),
        lambda: EndpointSettings(api_key=f"{KEY} "),
        lambda: EndpointSettings(api_key=KEY, base_url="ftp://h"),
        lambda: EndpointSettings(api_key=KEY, max_in_flight=0),
    ]
    told_in_the_value = attempts[5:10]  # the address itself holds it, and is a variable
    for attempt in attempts:
        try:
            attempt()
        except BatcherError as error:
            show("complaint", error)
            if attempt not in told_in_the_value:
                show_locals(error)
        else:
            print("not refused", attempts.index(attempt))
    for trouble in ("", " x"):
        with mock.patch.dict(os.environ, {"HH_API_KEY": KEY + trouble, "HH_BATCH_SIZE": "many"}):
            try:
                Batcher.from_env(base_url="ftp://h")
            except BatcherError as error:
                show("complaint", error)
                show_locals(error)


def dump() -> None:
    """Take apart what may be taken apart."""
    batcher = Batcher(api_key=KEY)
    config = batcher.config
    batcher.push({"model": CONTENT})
    fields = msgspec.structs.asdict(config.endpoint)
    session = batcher.session(session_name=CONTENT)
    dumps: list[Callable[[], object]] = [
        lambda: pickle.dumps(batcher),
        lambda: pickle.dumps(config),
        lambda: pickle.dumps(config.endpoint),
        lambda: pickle.dumps(fields["api_key"]),
        lambda: pickle.dumps(session),
        lambda: copy.copy(config),
        lambda: copy.deepcopy(config),
        lambda: copy.deepcopy(fields),
        lambda: msgspec.json.encode(config),
        lambda: msgspec.msgpack.encode(config),
        lambda: msgspec.json.encode(config, enc_hook=str),
        lambda: msgspec.json.encode(config, enc_hook=repr),
        lambda: msgspec.json.encode(config, enc_hook=attributes),
        lambda: msgspec.to_builtins(config, enc_hook=str),
        lambda: json.dumps(fields),
        lambda: json.dumps(fields, default=str),
        lambda: msgspec.structs.astuple(config.endpoint),
        lambda: vars(batcher),
        lambda: attributes(fields["api_key"]),
        lambda: bytes(fields["api_key"]),
        lambda: "".join(fields["api_key"]),
        lambda: fields["api_key"] + "",
    ]
    for attempt in dumps:
        try:
            show("dump", attempt())
        except Exception as error:
            show("dump", error)
            show_locals(error)
    asyncio.run(batcher.aclose(0))


def attributes(thing: Any) -> dict[str, str]:
    """Return what an object holds, as naive loggers do."""
    return {name: repr(getattr(thing, name)) for name in dir(thing) if name != "reveal"}


async def run(cases: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Go through the cases that need a server, and then through the others."""
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.0  # every step of everything is shown
    loop.set_exception_handler(lambda _, context: show("loop", context, *context.values()))
    outcomes: dict[str, Any] = {}

    async def meet(name: str, case: dict[str, str]) -> None:
        batcher = Batcher(**settings(base_url=case["url"], **json.loads(case.get("settings", "{}"))))
        await use(batcher)
        numbers = batcher.statistics()
        outcomes[name] = {"accepted": numbers.accepted, "delivered": numbers.delivered}

    await _meet_all(meet, {name: case for name, case in cases.items() if "proxy" not in case})
    for name, case in cases.items():
        if "proxy" in case:
            with mock.patch.dict(os.environ, {"HTTPS_PROXY": case["proxy"]}):
                await meet(name, case)
    await cancel(cases["hang"]["url"])
    await fail_within()
    await forget()
    return outcomes


async def _meet_all(
    meet: Callable[[str, dict[str, str]], Awaitable[None]], cases: dict[str, dict[str, str]]
) -> None:
    """Go through the cases, eight at once."""
    waiting = iter(cases.items())

    async def work() -> None:
        for name, case in waiting:
            await meet(name, case)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())


def _resolve(host: Any, *args: Any, _real: Any = socket.getaddrinfo, **options: Any) -> Any:
    if str(host).endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _real(host, *args, **options)


def main() -> None:
    """Run all, and say at the end what came of it: the last line on stdout."""
    import aiohttp  # noqa: F401, PLC0415 - a second, which would be missing in the first requests

    socket.getaddrinfo = _resolve
    sys.unraisablehook = lambda told: show("unraisable", told, told.exc_value, told.err_msg, told.object)
    handler = Everything()
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)
    for name in ("honeyhive_batcher", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    complain()
    dump()
    with contextlib.suppress(asyncio.CancelledError):
        outcomes = asyncio.run(run(json.load(sys.stdin)), debug=True)
    gc.collect()
    ours = sorted(name for name in sys.modules if name.split(".")[0] == honeyhive_batcher.__name__)
    print(json.dumps({"outcomes": outcomes, "modules": ours, "loggers": sorted(handler.names)}))


if __name__ == "__main__":
    main()

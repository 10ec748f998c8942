"""Bar 18: key and content show nowhere and go nowhere else, and a hostile answer costs nothing.

The instruments are a host program in a process of its own that shows all it has (`canary_host`), and
servers on real sockets that give key and content back in every place an answer has (`canary_server`).
"""

import ast
import asyncio
import base64
import contextlib
import itertools
import json
import logging
import os
import re
import sys
import tempfile
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

import honeyhive_batcher
from honeyhive_batcher import Batcher, Config, ConfigError, EndpointSettings
from tests.integration.raw_server import Connection, Fault, RawServer, bound_socket, good
from tests.reliability import canary_server as servers
from tests.reliability.canary_server import CONTENT, KEY, always
from tests.reliability.rows import Row, Size

_ROOT = Path(__file__).parents[2]
_MEBIBYTE = 2**20


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of bar 18."""
    watched = asyncio.run(watch(size))
    yield from exposure(watched)
    yield sources(watched)
    with _listening():
        yield asyncio.run(redirects())
    yield asyncio.run(bombs())
    yield from construction()
    yield asyncio.run(injection())


# What shows.


class Watched(Struct, frozen=True, kw_only=True):
    """What a host program with canaries showed, and what its servers saw."""

    cases: int
    shown: str
    outcomes: dict[str, dict[str, int]]
    """What became of the events, by case."""
    modules: list[str]
    """The modules of the package that it had imported at the end."""
    loggers: list[str]
    seen_by: dict[str, bytes]
    """All heads and bodies that reached a server, or a proxy (its name begins with "proxy: ")."""


async def watch(size: Size) -> Watched:
    """Run the host program against all servers."""
    faults = servers.BROKEN | {
        f"HTTP {status}": servers.echoing(status) for status in servers.statuses(size is Size.FULL)
    }
    cases: dict[str, dict[str, str]] = {}
    listening: dict[str, RawServer] = {}
    # A server whose client hangs up in the midst of TLS complains, and CPython 3.11 stumbles over it.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with contextlib.AsyncExitStack() as stack:

        async def listen(name: str, fault: Fault, scheme: str = "http") -> str:
            server = listening[name] = await stack.enter_async_context(always(fault))
            return f"{scheme}://localhost:{server.port}"

        for name, fault in faults.items():
            cases[name] = {"url": await listen(name, fault)}
            if "hang" in name:
                cases[name]["settings"] = '{"request_timeout": 0.1}'
        for certificate in ("trusted", "other_name", "expired"):
            cases[certificate] = {
                "url": await listen(certificate, servers.wrapped(certificate, good), "https")
            }
        no_tls = cases["good"]["url"].replace("http:", "https:")
        cases["no TLS"] = {"url": no_tls, "settings": '{"request_timeout": 0.4}'}
        refusing = bound_socket()
        stack.callback(refusing.close)
        cases["refused"] = {"url": f"http://localhost:{refusing.getsockname()[1]}"}
        cases["no such name"] = {"url": "http://honeyhive.invalid"}
        behind = await listen("behind a proxy", servers.wrapped("trusted", good), "https")
        for name, fault in servers.PROXIES.items():
            cases[name] = {
                "url": behind,
                "proxy": await listen(f"proxy: {name}", fault),
            }
        shown = await _run_host(cases)
    report = json.loads(shown.strip().rpartition("\n")[2])
    return Watched(
        cases=len(cases),
        shown=shown,
        seen_by={name: b"".join([*server.heads, *server.bodies]) for name, server in listening.items()},
        **report,
    )


async def _run_host(cases: dict[str, dict[str, str]]) -> str:
    environ = _without_proxies() | {
        "CANARY_KEY": KEY,
        "CANARY_CONTENT": CONTENT,
        "SSL_CERT_FILE": str(servers.AUTHORITY),
    }
    with tempfile.TemporaryFile("w+b") as told:  # no pipe: it would hold up the host whenever it is full
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "always", "-m", "tests.reliability.canary_host"),
            stdin=asyncio.subprocess.PIPE,
            stdout=told,
            stderr=asyncio.subprocess.STDOUT,
            cwd=_ROOT,
            env=environ,
        )
        await process.communicate(json.dumps(cases).encode())
        told.seek(0)
        shown = told.read().decode()
    assert process.returncode == 0, shown[-5000:]
    return shown


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def traces(text: str, *secrets: str) -> list[str]:
    """Return the lines of `text` in which one of the secrets stands, as it is or encoded."""
    forms = {form.lower() for secret in secrets for form in _forms(secret)}
    lower = text.lower()
    if not any(form in lower for form in forms):
        return []
    return [line for line in text.splitlines() if any(form in line.lower() for form in forms)]


def _forms(secret: str) -> Iterator[str]:
    data = secret.encode()
    yield secret
    yield secret[:12]  # `reprlib` cuts
    yield data.hex()
    yield urllib.parse.quote(secret)
    for shift in range(3):  # base64 at whatever offset, without the characters that depend on neighbours
        encoded = base64.b64encode(b"\0" * shift + data).decode()
        yield encoded[4 if shift else 0 : len(encoded) - len(encoded) % 4 - 4]


def _around(line: str, secret: str) -> str:
    """Return what stands around the first trace of a secret in a line."""
    lower = line.lower()
    at = min(lower.find(form.lower()) for form in _forms(secret) if form.lower() in lower)
    return f"... {line[max(0, at - 300) : at]} (here) ..."


def exposure(watched: Watched) -> Iterator[Row]:
    """Yield what the host program says about logs and dumps, TLS, proxies and imports."""
    lines = len(watched.shown.splitlines())
    for what, secret in (("API key", KEY), ("content of events and sessions", CONTENT)):
        found = traces(watched.shown, secret)
        yield Row(
            bar=18,
            what=f"{what} through {watched.cases} kinds of fault, everything logged at DEBUG and shown",
            figure=f"{len(found)} of {lines} lines"
            + "".join(f": {_around(line, secret)}" for line in found[:1]),
            bound="0",
            holds=not found
            and {"honeyhive_batcher", "asyncio"} <= set(watched.loggers)
            and watched.outcomes["good"]["delivered"] == watched.outcomes["good"]["accepted"] > 0,
        )
    untrusted = ("other_name", "expired")
    sent = sum(len(watched.seen_by[name]) for name in untrusted)
    delivered = {name: watched.outcomes[name]["delivered"] for name in (*untrusted, "trusted")}
    yield Row(
        bar=18,
        what="a certificate for another host, or expired: bytes sent; events delivered to a right one",
        figure=f"{sent}; {delivered['trusted']} of {watched.outcomes['trusted']['accepted']}",
        bound="0; all",
        holds=sent == 0
        and delivered["other_name"] == delivered["expired"] == 0
        and delivered["trusted"] == watched.outcomes["trusted"]["accepted"] > 0,
    )
    through = watched.outcomes["a tunnel"]
    seen = [data for name, data in watched.seen_by.items() if name.startswith("proxy: ")]
    hits = sum(KEY.encode() in data or CONTENT.encode() in data for data in seen)
    yield Row(
        bar=18,
        what=f"https through {len(seen)} proxies: proxies that saw key or content; delivered by a tunnel",
        figure=f"{hits}; {through['delivered']} of {through['accepted']}",
        bound="0; all",
        holds=hits == 0 and all(seen) and through["delivered"] == through["accepted"] > 0,
    )


# What goes elsewhere.

_REDIRECTS = (300, 301, 302, 303, 304, 307, 308)


async def redirects() -> Row:
    """Answer with every redirect, to another origin and to the same, and see who is asked next."""
    asked = requests = 0
    bytes_elsewhere = 0
    async with RawServer() as elsewhere:
        for status, is_same in itertools.product(_REDIRECTS, (False, True)):
            server = RawServer()

            async def redirect(
                connection: Connection, server: RawServer = server, status: int = status, same: bool = is_same
            ) -> bool:
                await connection.request()
                target = server if same else elsewhere
                await connection.answer(status, b"", f"Location: {target.url}/elsewhere")
                return True

            async with server:
                server.faults.extend([redirect] * 10)
                async with Batcher(
                    api_key=KEY, base_url=server.url, flush_interval=0.0, shutdown_timeout=0.0
                ) as batcher:
                    batcher.push({"model": "gpt-4o", "content": CONTENT})
                    await batcher.flush(timeout=30)
                requests += batcher.statistics().requests
                asked += len(server.heads)
        bytes_elsewhere = sum(map(len, [*elsewhere.heads, *elsewhere.bodies]))
        return Row(
            bar=18,
            what=f"redirects ({', '.join(map(str, _REDIRECTS))}) to another and to the same origin: "
            "bytes and connections there; requests that were not ours",
            figure=f"{bytes_elsewhere}, {elsewhere.connections}; {asked - requests} of {asked}",
            bound="0, 0; 0",
            holds=bytes_elsewhere == elsewhere.connections == 0 and asked == requests == 2 * len(_REDIRECTS),
        )


# What an answer costs.

_BOMB = 200 * _MEBIBYTE
_BROTLI = base64.b64decode(
    "z///f/gnAOKxQCD3/p/////wTwDEYQGA7v0/////4Z8AiMMiAN37f/7//8M/ARCHBQC69//8//+HfwIgDgsAdO//+f//D/8EQBwWAOje"
    "//P//x/+CYA4LADQvf/n//8//BMAcVgAoHv/z///f/gnAOKwAED3/p/////wTwDEYQGA7v0/////4Z8AiMMCAN37f/7//8M/ARCHBQC6"
    "9//5//+HfwIgDgsAdO//AA=="
)
"""200 MiB of zeros, as brotli packs them."""


def _packed() -> dict[str, bytes]:
    zeros = bytes(_MEBIBYTE)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum = 0
    parts = []
    for _ in range(_BOMB // _MEBIBYTE):
        parts.append(packer.compress(zeros))
        checksum = zlib.crc32(zeros, checksum)
    packed = b"".join([*parts, packer.flush()])
    ending = checksum.to_bytes(4, "little") + _BOMB.to_bytes(4, "little")
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    return {"gzip": head + packed + ending, "deflate": packed, "br": _BROTLI}


def _sending(encoding: str, body: bytes, times: int = 1) -> Fault:
    async def answer(connection: Connection) -> bool:
        await connection.request()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body) * times}\r\n\r\n"
        )
        await connection.write(head.encode())
        for _ in range(times):
            await connection.write(body)
        return True

    return answer


async def bombs() -> Row:
    """Send answers of 200 MiB, packed and not, to a process of its own, and have it measure itself."""
    packed = _packed()
    faults = [_sending(name, body) for name, body in packed.items()]
    faults.append(_sending("identity", bytes(_MEBIBYTE), _BOMB // _MEBIBYTE))
    async with contextlib.AsyncExitStack() as stack:
        listening = [await stack.enter_async_context(RawServer(good, good, fault)) for fault in faults]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.reliability.bombed_host", *[server.url for server in listening]),
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env=_without_proxies(),
        )
        told, _ = await process.communicate()
        costs: list[dict[str, int]] = [json.loads(line) for line in told.splitlines()]
        answered = [len(server.heads) for server in listening]
    most = max(cost[kind] for cost in costs for kind in ("rss", "traced"))
    kinds = ", ".join(f"{name} {len(body):,} B" for name, body in packed.items())
    return Row(
        bar=18,
        what=f"answers of 200 MiB ({kinds}, plain): the most memory one costs",
        figure=f"{most / _MEBIBYTE:.1f} MiB",
        bound="5 MiB",
        holds=most <= 5 * _MEBIBYTE
        and [cost["status"] for cost in costs] == [200] * len(faults)
        and answered == [3] * len(faults),
    )


# What is refused at construction.

BAD_KEYS: tuple[Any, ...] = (
    *(
        f"{KEY}{bad}"
        for bad in ("\r\nX-Evil: 1", "\n", "\r", "\0", " ", "\t", "\x7f", "é", "\u20ac", "\ud800")
    ),
    *("", b"bytes", 5, [KEY], {"key": KEY}, KEY.encode()),
)
BAD_ADDRESSES: tuple[Any, ...] = (
    *(f"https://h/{bad}" for bad in ("\r\nX-Evil: 1", "\n", "\0", " ", "\t", "\x7f", "é", "\\..\\x")),
    *(
        "https://h\r\n.evil",
        "https://h\n",
        "\nhttps://h",
        " https://h",
        "https://h\0",
        "https://h h",
        "https://é",
    ),
    *(f"https://{login}@h" for login in (KEY, f"me:{KEY}", f":{KEY}", "", "me")),
    *(f"https://me:{KEY}%40h", f"https://me:{KEY}@h:99999", f"ftp://me:{KEY}@h", f"https://me:{KEY}@[::1"),
    *(
        "https://h#",
        "https://h?",
        f"https://h/?key={KEY}",
        f"https://h/#{KEY}",
        "https://h/p?",
        f"https://h?{KEY}",
    ),
    *(
        "ftp://h",
        "file:///etc/passwd",
        "ws://h",
        "gopher://h",
        "javascript:alert(1)",
        "h",
        "//h",
        "",
        KEY,
        "h:443",
    ),
    *("https://", "https:///p", "https://:443", "http:h", "https:/h", "https://?", "https://#"),
    *(f"https://h:{port}" for port in ("0", "65536", "99999", "-1", "+1", "x", "4 4", "1e3", "0x50", "")),
    *("https://[::1", "https://::1", "https://[h]", "https://[::1]x", "https://[]", "https://[1.2.3.4]"),
    *(
        "https://a..b",
        "https://-a",
        "https://a-",
        "https://.",
        "https://a%0d%0ab",
        "https://a\\b",
        "https://a<b",
    ),
    *(b"https://h", None, 5, {"url": f"https://me:{KEY}@h"}),
)
GOOD_ADDRESSES = (
    *(
        "https://api.honeyhive.ai",
        "https://h/",
        "https://h:65535/p/q",
        "https://my_host.",
        "https://xn--e1a.eu",
    ),
    *(
        "http://localhost:1",
        "http://LOCALHOST",
        "http://localhost.",
        "http://127.0.0.1",
        "http://127.255.3.4:5",
    ),
    *("http://[::1]:5", "https://[2001:db8::1]/p", "https://10.0.0.1", "https://h/a%20b"),
)
PLAIN_ELSEWHERE = (
    "http://h",
    "HTTP://h",
    "http://10.0.0.1",
    "http://[2001:db8::1]",
    "http://localhost.evil.com",
)


def construction() -> Iterator[Row]:
    """Give bad keys and addresses, as arguments and in the environment."""
    bad = [{"api_key": key} for key in BAD_KEYS]
    bad += [{"api_key": "hh_test", "base_url": url} for url in BAD_ADDRESSES]
    refused = shown = 0
    for settings in bad:
        told = _complaints(settings)
        refused += len(told) == len(_ways(settings))
        shown += any(traces(text, KEY) for text in told)
    good = [url for url in GOOD_ADDRESSES if _lines({"api_key": KEY, "base_url": url}) == []]
    yield Row(
        bar=18,
        what="bad keys and addresses refused, as arguments and in the environment; shown; good ones taken",
        figure=f"{refused} of {len(bad)}; {shown}; {len(good)} of {len(GOOD_ADDRESSES)}",
        bound="all; 0; all",
        holds=refused == len(bad) and shown == 0 and len(good) == len(GOOD_ADDRESSES),
    )
    warned = [url for url in PLAIN_ELSEWHERE if len(_lines({"api_key": KEY, "base_url": url})) == 1]
    unverified = _lines({"api_key": KEY, "verify_tls": False})
    local = _lines({"api_key": KEY, "verify_tls": False, "base_url": "https://localhost"})
    yield Row(
        bar=18,
        what="plain http to another machine, TLS not verified: warned of once each; within the machine",
        figure=f"{len(warned) + len(unverified)} of {len(PLAIN_ELSEWHERE) + 1}; {len(local)}",
        bound="all; 0",
        holds=len(warned) == len(PLAIN_ELSEWHERE) and len(unverified) == 1 and not local,
    )


_NAMES = {"api_key": "HH_API_KEY", "base_url": "HH_API_URL"}


def _environ(settings: dict[str, Any]) -> dict[str, str] | None:
    """Return the settings as environment variables, if they may stand there and mean the same."""
    if not all(isinstance(value, str) and value == value.strip() and value for value in settings.values()):
        return None
    return {_NAMES[name]: value for name, value in settings.items()}


def _ways(settings: dict[str, Any]) -> list[Any]:
    environ = _environ(settings)
    ways = [lambda: Batcher(**settings), lambda: Config.of(**settings), lambda: EndpointSettings(**settings)]
    return ways if environ is None else [*ways, lambda: Batcher.from_env(environ)]


def _complaints(settings: dict[str, Any]) -> list[str]:
    told = []
    for way in _ways(settings):
        try:
            way()
        except ConfigError as error:
            told.append(f"{error!r} {error} {error.args} {error.__cause__!r}")
    return told


def _lines(settings: dict[str, Any]) -> list[str]:
    """Return what is logged when a batcher is made."""
    with _listening() as lines:
        Batcher(**settings)
    return lines


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Yield what the package logs of warnings and errors, and keep it from everybody else."""
    lines: list[str] = []
    logger = logging.getLogger("honeyhive_batcher")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]  # shortest
    logger.addHandler(handler)
    was, logger.propagate = logger.propagate, False
    try:
        yield lines
    finally:
        logger.propagate = was
        logger.removeHandler(handler)


# What comes into a header.

_EVIL = "a\r\nX-Evil: 1\r\n\r\nPOST / HTTP/1.1"


async def injection() -> Row:
    """Put line breaks wherever a program or its environment may, and compare the heads of the requests."""
    environ = {"HH_PROJECT": _EVIL, "HH_SOURCE": _EVIL, "HH_SESSION_NAME": _EVIL}
    places = ("event_id", "session_id", "parent_id", "project", "source", "model", "event_name", _EVIL)
    async with RawServer() as server:
        given: dict[str, Any] = {"api_key": KEY, "base_url": server.url, "flush_interval": 0.0}
        async with Batcher(**given) as batcher:
            batcher.push({"model": "gpt-4o"})
            await batcher.flush(timeout=30)
        async with Batcher.from_env(environ, **given) as batcher:
            for place in places:
                batcher.push({place: _EVIL})
                await batcher.flush(timeout=30)
            with batcher.session(session_id=_EVIL, **{_EVIL: _EVIL}) as session:
                batcher.push({"model": _EVIL})
                await batcher.flush(timeout=30)
                session.outputs = _EVIL
            await batcher.flush(timeout=30)
        heads = [re.sub(rb"Content-Length: \d+", b"", head) for head in server.heads]
    plain, evil = heads[0].replace(b"POST /events/model/batch", b""), heads[1:]
    verbs = re.compile(rb"\A(POST /events/model/batch|PUT /events)(?= HTTP)")
    others = sum(verbs.sub(b"", head) != plain for head in evil)
    return Row(
        bar=18,
        what="line breaks in events, sessions and the environment: requests whose headers differ",
        figure=f"{others} of {len(evil)}",
        bound="0",
        holds=others == 0 and len(evil) == len(places) + 2,
    )


# What the sources do.

_NEVER = {
    "pickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "dbm",
    "imp",
    "runpy",
    "code",
    "codeop",
    "ctypes",
}
_NEVER_IN_A_HOST = {"importlib", "pkgutil", "subprocess", "multiprocessing", "pty", "tempfile"}
_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execv", "execve", "spawnv"}


def offences(source: str, modules: set[str]) -> list[str]:
    """Return which of the modules a source imports, and which of the forbidden functions it calls."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.split(".")[0] in modules]
            case ast.ImportFrom(module=str(module), names=names):
                found += [module] if module.split(".")[0] in modules else []
                found += [f"{module}.{name.name}" for name in names if name.name in _CALLS and module == "os"]
            case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
                found.append(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=name)) if name in _CALLS:
                found.append(f"os.{name}")
            case _:
                pass
    return found


def sources(watched: Watched) -> Row:
    """Read every source of the package, more strictly those that a host program has imported at its end."""
    folder = Path(honeyhive_batcher.__file__).parent
    files = sorted(folder.rglob("*.py"))
    found: list[str] = []
    in_a_host = 0
    for file in files:
        parts = file.relative_to(folder.parent).with_suffix("").parts
        is_in_a_host = ".".join(parts).removesuffix(".__init__") in watched.modules
        in_a_host += is_in_a_host
        modules = _NEVER | _NEVER_IN_A_HOST if is_in_a_host else _NEVER
        found += [f"{file.name}: {offence}" for offence in offences(file.read_text("utf-8"), modules)]
    strangers = [
        name for name in watched.modules if name.split(".")[1:2] in (["cli"], ["collector"], ["testing"])
    ]
    return Row(
        bar=18,
        what=f"pickle, eval, exec and the like in {len(files)} sources, dynamic imports, processes and "
        f"temporary files in the {in_a_host} that a host imports",
        figure=", ".join(found + strangers) or "0",
        bound="0",
        holds=not found and not strangers and in_a_host == len(watched.modules) > 20,
    )

"""A local HoneyHive: the collector as one object to start, look at and close."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from aiohttp import web

from honeyhive_batcher.collector.answer import Step
from honeyhive_batcher.collector.dev_routes import dev_routes
from honeyhive_batcher.collector.endpoint import Endpoint
from honeyhive_batcher.collector.faults import Faults
from honeyhive_batcher.collector.guard import LOOPBACK_NAMES
from honeyhive_batcher.collector.rows import Stats, StoredEvent, StoredRequest, StoredSession
from honeyhive_batcher.collector.store import Store
from honeyhive_batcher.errors import ConfigError

# Nothing slow is left when connections are shut: whatever is delayed or hangs is let go first.
_SHUTDOWN_TIMEOUT = 1.0


class Settings(TypedDict):
    """What a batcher needs to send to a collector: `Batcher(**hive.settings())`."""

    base_url: str
    api_key: str


class Collector:
    """A local HoneyHive on a loopback address.

    `async with Collector() as hive:` starts and closes it. Inside, every method and attribute may be
    used from any thread; afterwards, what it stored is gone, or in the file.

    Args:
        host: a loopback address or "localhost".
        port: 0 for any free port.
        db: path of a SQLite file, or ":memory:".
        api_key: the only key accepted; None accepts any.
        faults: how to misbehave from the start.
        seed: equal seeds give equal faults in an equal order of requests.
        on_request: called in the collector's loop with every request when its answer is known;
            it must not raise.

    Raises:
        ConfigError: `host` is not a loopback address, or `db` cannot be used.
        OSError: from `start`, when the port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        db: str | Path = ":memory:",
        api_key: str | None = None,
        faults: Faults | None = None,
        seed: int = 0,
        on_request: Callable[[StoredRequest], None] | None = None,
    ) -> None:
        if host not in LOOPBACK_NAMES:
            raise ConfigError(
                f"host: {host!r} is not a loopback address ({', '.join(LOOPBACK_NAMES)}); what the collector "
                f"stores is not for the network"
            )
        # The name may stand for two addresses, with different free ports; one is enough.
        self._host = "127.0.0.1" if host == "localhost" else host
        self._port = port
        self._db = db
        self._api_key = api_key
        self._faults = Faults() if faults is None else faults
        self._seed = seed
        self._on_request = on_request
        self._runner: web.AppRunner | None = None
        self._running: tuple[Store, Endpoint] | None = None

    def __repr__(self) -> str:
        return f"<Collector {self.url if self._running else 'not running'} db={str(self._db)!r}>"

    async def start(self) -> None:
        """Open the file and listen.

        Raises:
            ConfigError: `db` cannot be used.
            OSError: the port is taken.
        """
        store = Store(self._db)
        endpoint = Endpoint(
            store, faults=self._faults, seed=self._seed, api_key=self._api_key, on_request=self._on_request
        )
        app = web.Application()
        app.add_routes([*dev_routes(store, endpoint), web.route("*", "/{path:.*}", endpoint.serve)])
        runner = web.AppRunner(
            app,
            access_log=None,
            # The body is wanted as it is on the wire: to count it, and to stop a gzip bomb ourselves.
            auto_decompress=False,
            # A client that gives up ends the request, as the table of requests then says.
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            store.close()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        self._running = store, endpoint

    async def aclose(self) -> None:
        """Stop listening, cut what hangs, close the file. Does nothing when it is not running."""
        if self._runner is None or self._running is None:
            return
        runner, (store, endpoint) = self._runner, self._running
        self._runner = None
        endpoint.close()
        try:
            await runner.cleanup()
        finally:
            self._running = None
            store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """Where it listens, for example "http://127.0.0.1:54321"; without a slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def settings(self) -> Settings:
        """Return what a batcher needs to send here: `Batcher(**hive.settings())`."""
        return {"base_url": self.url, "api_key": self._api_key or "hh_test"}

    @property
    def faults(self) -> Faults:
        """How it misbehaves; assign to change it, effective from the next request on."""
        return self._parts[1].faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._parts[1].faults = faults

    def script(self, *steps: Step) -> None:
        """Fix what befalls the next requests, one step each, before `faults` have their say again.

        Steps are used up by requests that the contract allows, in the order in which they arrive, and
        are added behind those not used yet. A step is an `Answer`; or None for good behaviour; or a
        function, asynchronous or not, that is called in the collector's loop with a `RequestInfo` and
        returns one of these.
        """
        self._parts[1].script.extend(steps)

    def events(self) -> list[StoredEvent]:
        """List all events created, newest last."""
        return self._parts[0].events()

    def sessions(self) -> list[StoredSession]:
        """List all sessions, newest last."""
        return self._parts[0].sessions()

    def requests(self) -> list[StoredRequest]:
        """List all requests, newest last; those to `/_dev` are not among them."""
        return self._parts[0].requests()

    def stats(self) -> Stats:
        """Count what is stored."""
        return self._parts[0].stats()

    def clear(self) -> None:
        """Forget all events, sessions and requests, and the steps not used yet; `faults` stay."""
        self._parts[0].clear()
        self._parts[1].script.clear()

    @property
    def _parts(self) -> tuple[Store, Endpoint]:
        if self._running is None:
            raise RuntimeError("the collector is not running")
        return self._running

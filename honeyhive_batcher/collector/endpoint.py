"""The emulated routes: one request in, one answer or none out."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from honeyhive_batcher.collector.answer import JSON, Answer, RequestInfo, Step
from honeyhive_batcher.collector.body import WireCount, decompressed, read_body
from honeyhive_batcher.collector.contract import parse_batch, parse_update
from honeyhive_batcher.collector.faults import Dice, Faults
from honeyhive_batcher.collector.guard import check_authorization, check_content_type, check_host
from honeyhive_batcher.collector.refusal import RefusedError, error_body
from honeyhive_batcher.collector.rows import StoredRequest
from honeyhive_batcher.collector.store import NewEvent, Store

_NOT_CREATED: Final = "Could not create event due to missing model"
"""One of the two messages in the example of OpenAPI 1.1.0; like there, it names no event."""


class _Visit:
    """What is known so far about the request at hand."""

    def __init__(self, request_id: int, received_at: float) -> None:
        self.id = request_id
        self.received_at = received_at
        self.began_at = time.perf_counter()
        self.count = WireCount()
        self.encoding: str | None = None
        self.events = 0
        self.status: int | None = None
        self.fault: str | None = None
        self.message: str | None = None

    def record(self, request: web.Request, *, over: bool) -> StoredRequest:
        return StoredRequest(
            id=self.id,
            received_at=self.received_at,
            method=request.method,
            path=request.path,
            status=self.status,
            events=self.events,
            bytes=self.count.bytes,
            encoding=self.encoding,
            latency=time.perf_counter() - self.began_at if over else None,
            fault=self.fault,
            message=self.message,
        )


class Endpoint:
    """Serves `POST /events/model/batch` and `PUT /events`, and refuses every other route.

    Invariant: every request is recorded when it comes and again when its answer is known, before the
    client can see it; and it is answered after what it creates is stored.
    """

    def __init__(
        self,
        store: Store,
        *,
        faults: Faults,
        seed: int,
        api_key: str | None,
        on_request: Callable[[StoredRequest], None] | None,
    ) -> None:
        self.faults = faults
        self.script: deque[Step] = deque()
        self._store = store
        self._dice = Dice(seed)
        self._api_key = api_key
        self._on_request = on_request
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let go of every request that is being delayed or kept hanging; their connections are cut."""
        self._closing.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of any method and path."""
        received_at = time.time()
        visit = _Visit(self._store.open_request(request.method, request.path, received_at), received_at)
        try:
            response = await self._response(request, visit)
            visit.status = None if response is None else response.status
        except asyncio.CancelledError:
            visit.message = "no answer: the client went away"
            raise
        except Exception as failure:
            # A script's step or the disk failed; aiohttp logs it and answers the 500.
            visit.status = 500
            visit.message = f"the collector failed: {failure!r}"
            raise
        finally:
            record = visit.record(request, over=True)
            self._store.close_request(record)
            if self._on_request is not None:
                self._on_request(record)
        if response is None:
            # A lost connection would have cancelled this task (`handler_cancellation`).
            assert request.transport is not None
            request.transport.abort()
            # aiohttp wants a response; there is no connection left to write it to.
            return web.Response()
        return response

    async def _response(self, request: web.Request, visit: _Visit) -> web.Response | None:
        try:
            check_host(request)
            match request.method, request.path:
                case "POST", "/events/model/batch":
                    body = await self._body(request, visit)
                    return await self._take_batch(request, visit, body)
                case "PUT", "/events":
                    body = await self._body(request, visit)
                    return await self._take_update(request, visit, body)
                case _:
                    what = f"{request.method} {request.path}"
                    raise RefusedError(404, f"not emulated by the collector: {what}")  # noqa: TRY301
        except RefusedError as refused:
            visit.message = refused.message
            return refusal(refused)

    async def _body(self, request: web.Request, visit: _Visit) -> bytes:
        check_authorization(request, self._api_key)
        check_content_type(request)
        visit.encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        body = await read_body(request.content.iter_any(), request.content_length, visit.count)
        return decompressed(body, visit.encoding)

    async def _take_batch(self, request: web.Request, visit: _Visit, body: bytes) -> web.Response | None:
        batch = parse_batch(body)
        visit.events = len(batch.events)
        answer = await self._answer(request, visit, body, tuple(event.fields for event in batch.events))
        session_id = None if batch.session is None else batch.session.get("session_id") or str(uuid.uuid4())
        created: list[NewEvent] = []
        for position in range(visit.events) if answer.created is None else answer.created:
            event = batch.events[position]
            own_id = event.fields.get("event_id")
            server_id = own_id if own_id and answer.echo else str(uuid.uuid4())
            created.append(
                NewEvent(
                    event_id=own_id or server_id,
                    server_id=server_id,
                    session_id=session_id or event.fields.get("session_id"),
                    fields=event.fields,
                    # An event in order has members, so a comma always follows the one put in front.
                    raw=event.raw if own_id else b'{"event_id":"%b",%b' % (server_id.encode(), event.raw[1:]),
                )
            )
        if created:
            session = None if session_id is None else (session_id, batch.session or {})
            self._store.create(created, session=session, request_id=visit.id, now=visit.received_at)
        result: dict[str, Any] = {"event_ids": [event.server_id for event in created]}
        missing = visit.events - len(created)
        if missing:
            result["errors"] = [_NOT_CREATED] * missing
        # True in the example of a partial 500 as well (OpenAPI 1.1.0).
        result["success"] = True
        return await self._reply(request, visit, answer, 500 if missing else 200, result)

    async def _take_update(self, request: web.Request, visit: _Visit, body: bytes) -> web.Response | None:
        update = parse_update(body)
        answer = await self._answer(request, visit, body, ())
        if answer.created is None and not self._store.update(
            update.event_id, update.changes, visit.received_at
        ):
            # What the daemon of HoneyHive met when the session had no root (honeyhive-daemon 0.5.1).
            raise RefusedError(400, "no session or event with this event_id")
        return await self._reply(request, visit, answer, 200, {"success": True})

    async def _answer(
        self, request: web.Request, visit: _Visit, body: bytes, events: tuple[dict[str, Any], ...]
    ) -> Answer:
        if not self.script:
            return self._dice.roll(self.faults, len(events))
        step = self.script.popleft()
        if callable(step):
            decided = step(
                RequestInfo(
                    id=visit.id,
                    method=request.method,
                    path=request.path,
                    headers={
                        name.lower(): value
                        for name, value in request.headers.items()
                        if name.lower() != "authorization"
                    },
                    body=body,
                    events=events,
                )
            )
            step = await decided if isinstance(decided, Awaitable) else decided
        return step or Answer()

    async def _reply(
        self, request: web.Request, visit: _Visit, answer: Answer, status: int, result: dict[str, Any]
    ) -> web.Response | None:
        visit.fault = answer.fault
        if answer.then == "hang":
            # Readers see that it hangs while it does.
            self._store.close_request(visit.record(request, over=False))
        if answer.then == "hang" or answer.delay:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if answer.then == "hang" else answer.delay):
                    await self._closing.wait()
            if self._closing.is_set():
                return None
        if answer.then == "drop":
            return None
        status = answer.status or status
        body = answer.body
        if body is None and answer.status is not None and not 200 <= answer.status <= 299:
            visit.message = f"injected by the collector: {answer.status}"
            body = error_body(answer.status, visit.message)
        if body is None:
            body = msgspec.json.encode(result)
        return web.Response(status=status, body=body, headers={"Content-Type": JSON, **answer.headers})


def refusal(refused: RefusedError) -> web.Response:
    """Make the documented answer to a refused request."""
    return web.Response(
        status=refused.status,
        body=error_body(refused.status, refused.message),
        headers={"Content-Type": JSON},
    )

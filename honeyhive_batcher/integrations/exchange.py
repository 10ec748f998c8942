"""One call of an instrumented client: from its request to its event, on whichever way it ends."""

import os
import time
from collections.abc import Mapping
from typing import Any, final

from honeyhive_batcher.claims import Claim
from honeyhive_batcher.integrations.answer_body import AnswerBody, StreamedBody, WholeBody
from honeyhive_batcher.integrations.calls import push_within
from honeyhive_batcher.integrations.dialect import Dialect
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.once import is_new_error, is_news
from honeyhive_batcher.integrations.response_tap import is_response, tap
from honeyhive_batcher.integrations.values import event_with, text
from honeyhive_batcher.model_call import described
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.session import Session, current
from honeyhive_batcher.unfinished import forget, keep

_NAME = "the adapter of a client"
_NOT_DUMPED: dict[str, Any] = {
    # What the client has made of the text of an answer, by classes of the user's.
    "choices": {
        "__all__": {
            "message": {"parsed": True, "tool_calls": {"__all__": {"function": {"parsed_arguments": True}}}}
        }
    },
    "output": {"__all__": {"parsed_arguments": True, "content": {"__all__": {"parsed": True}}}},
    "content": {"__all__": {"parsed_output": True}},
}


@final
class Exchange:
    """Hears of a call what it can, and tells `batcher` of it once, where the call's sessions are bound.

    Nothing here raises but `__init__`, from any thread.
    """

    def __init__(
        self,
        batcher: Producer,
        dialect: Dialect,
        *,
        body: Mapping[str, Any],
        provider: str,
        claim: Claim | None,
        is_async: bool,
    ) -> None:
        self.batcher = batcher
        """Who is told."""
        self._dialect = dialect
        self._fields = dialect.request_fields(body)
        self._asks_for_stream = bool(body.get("stream"))
        self._provider = provider
        self._claim = claim
        self._is_async = is_async
        self._sessions: tuple[Session, ...] = current.get()
        self._pid = os.getpid()
        self._right_to_tell = [True]  # who comes first takes it: that is atomic, and needs no lock
        self._body: AnswerBody = WholeBody()
        self._began_time = time.time()
        self._began_at = time.perf_counter()

    def answered(self, answer: Any) -> None:
        """Take what the client's `request` has returned: an answer, or what it will be read from."""
        try:
            response = _response_of(answer)
            if response is None:
                self._tell(_dumped(answer), None)
                return
            said = response.headers.get("content-type", "").lower()
            # The clients do not look at it, and not everybody says it.
            if "event-stream" in said or (self._asks_for_stream and "json" not in said):
                self._body = StreamedBody(self._dialect.assembly())
            if response.is_closed:  # it was read, all of it
                self._body.see(response.content)
                self.end()
            else:
                tap(response, self, is_async=self._is_async)
                keep(self)
        except Exception as error:  # an answer of another shape
            self._give_up(error)

    def see(self, data: bytes) -> None:
        """Take a piece of the answer, as it is read."""
        try:
            if self._right_to_tell:
                self._body.see(data)
                if self._body.error is not None:
                    self.end()  # now: who raises because of it need not close the stream
        except Exception as error:  # a stream of another shape
            self._give_up(error)

    def end(self, error: BaseException | None = None) -> None:
        """Take that the answer was read, or left, or that it could not be had."""
        forget(self)
        try:
            if self._right_to_tell:
                answer = self._body.answer()
                self._tell(answer, error, self._body.error, is_complete=self._body.is_complete)
        except Exception as failure:  # an answer, or an error, of another shape
            self._give_up(failure)

    def _tell(
        self,
        answer: Mapping[str, Any],
        error: BaseException | None,
        said: str | None = None,
        *,
        is_complete: bool = True,
    ) -> None:
        """Push the event, unless it was, or somebody else does. `said` is the provider's word of an error."""
        took = 1e3 * (time.perf_counter() - self._began_at)
        if self._pid != os.getpid():  # this is a forked child: the call is the parent's
            self._right_to_tell.clear()
            return
        if isinstance(error, GeneratorExit):
            error, is_complete = None, False  # nobody wanted the rest
        event = self._fields | {"provider": self._provider, "event_name": self._dialect.name}
        found = self._dialect.answer_fields(answer)
        metadata = {**(event.get("metadata") or {}), **(found.pop("metadata", None) or {})}
        event |= {name: value for name, value in found.items() if value is not None}
        began = 1e3 * self._began_time
        event |= {"start_time": began, "end_time": began + took, "duration": took}
        if said is not None or error is not None:
            event["error"] = said if error is None else said or described(error)
        if not is_complete if answer else error is None:
            metadata["incomplete"] = True
        event["metadata"] = metadata or None
        try:
            self._right_to_tell.pop()
        except IndexError:
            return  # another thread came first
        event = event_with(event)
        if self._claim is not None:
            mine = self._claim.hear(event)
        else:
            is_new = is_new_error(self.batcher, error, self._began_at) and is_news(
                self.batcher, text(answer.get("id")), _NAME
            )
            mine = event if is_new else None
        if mine is not None:
            push_within(self.batcher, mine, self._sessions)

    def _give_up(self, error: Exception) -> None:
        try:
            self._right_to_tell.pop()
        except IndexError:
            return
        if self._claim is None:
            count_failure(self.batcher, _NAME, error)


def _response_of(answer: Any) -> Any:
    """Return the HTTP response that an answer is read from; None when there is the answer itself only."""
    for candidate in (answer, getattr(answer, "http_response", None), getattr(answer, "response", None)):
        if candidate is not None and is_response(candidate):
            return candidate
    return None


def _dumped(answer: Any) -> Mapping[str, Any]:
    if hasattr(answer, "model_dump"):
        # No warnings: what the user's own classes hold need not fit.
        return dict(answer.model_dump(exclude=_NOT_DUMPED, exclude_none=True, warnings=False))
    return answer if isinstance(answer, Mapping) else {}

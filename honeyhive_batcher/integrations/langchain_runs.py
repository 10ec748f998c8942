"""The runs of models that LangChain has told of, from their beginning to their event."""

import asyncio
import time
import weakref
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, final
from uuid import UUID

from honeyhive_batcher.claims import Claim, is_claimed, open_claim
from honeyhive_batcher.integrations.calls import UnderWay, push_within
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.langchain_values import answer_fields, answer_id, is_cached, start_fields
from honeyhive_batcher.integrations.once import is_new_error, is_news
from honeyhive_batcher.model_call import described
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.session import Session, current

_MODEL_METHODS = {"_generate", "_agenerate", "_stream", "_astream", "_call", "_acall"}
"""Every model makes its call below one of these."""
_NAME = "the adapter of LangChain"


@final
class _Run:
    """A run that has begun."""

    def __init__(self, messages: Any, about: Mapping[str, Any], claim: Claim) -> None:
        self.messages = messages
        self.about = about
        self.claim = claim
        self.began_at = time.time()
        self.began = time.perf_counter()
        self.sessions: tuple[Session, ...] = current.get()


@final
class Runs:
    """Turns what LangChain says into events for one batcher. Nothing here raises, from any thread."""

    def __init__(self, batcher: Producer) -> None:
        self.batcher = batcher
        self._under_way = UnderWay[_Run]()
        self._of_tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], set[UUID]] = weakref.WeakKeyDictionary()

    def begin(
        self, model: Any, prompts: Sequence[Any], about: Mapping[str, Any], *, in_its_task: bool
    ) -> None:
        """Note that a run of a model begins, with one prompt. Another adapter below it keeps silent until it
        ends.

        `in_its_task` says that this is called in the task that makes the call, if there is one.
        """
        try:
            if is_claimed(self.batcher):
                return
            run_id, messages = about["run_id"], prompts[0]
            named = {**about, "name": about.get("name") or (model or {}).get("name")}
            run = _Run(messages, named, open_claim(self.batcher, _is_of_a_model))
            forgotten = self._under_way.begin(run_id, run)
            if forgotten is not None:
                self._tell(forgotten, incomplete=True)
            if in_its_task:
                self._watch(run_id)
        except Exception as error:  # a strange message is no reason to fail the user's call
            count_failure(self.batcher, _NAME, error)

    def end(self, response: Any, about: Mapping[str, Any]) -> None:
        """Tell of a run that has got its answer."""
        run = self._under_way.end(about.get("run_id"))
        if run is not None:
            self._tell(run, response)

    def fail(self, error: BaseException, about: Mapping[str, Any]) -> None:
        """Tell of a run that failed, was cancelled, or whose stream was left; with what had come by then."""
        run = self._under_way.end(about.get("run_id"))
        if run is not None:
            was_left = isinstance(error, GeneratorExit)
            self._tell(run, about.get("response"), error=None if was_left else error, incomplete=True)

    def _watch(self, run_id: UUID) -> None:
        """Have a run end with its task: of an `ainvoke` that is cancelled LangChain says nothing more."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return  # no loop runs here
        if not isinstance(task, asyncio.Task):
            return  # a callback of a loop's, or a task of somebody's own kind
        known = self._of_tasks.get(task)
        if known is None:
            known = self._of_tasks[task] = set()
            task.add_done_callback(self._task_ended)
        # Those that have ended leave: a task may be a long one.
        known.intersection_update([each for each in known if self._under_way.get(each) is not None])
        known.add(run_id)

    def _task_ended(self, task: "asyncio.Task[Any]") -> None:
        for run_id in self._of_tasks.pop(task, ()):
            run = self._under_way.end(run_id)
            if run is not None:
                self._tell(run, error=asyncio.CancelledError(), incomplete=True)

    def _tell(
        self, run: _Run, response: Any = None, *, error: BaseException | None = None, incomplete: bool = False
    ) -> None:
        try:
            run.claim.close()
            if is_cached(response):
                return  # no call was made
            duration = (time.perf_counter() - run.began) * 1e3
            started = run.began_at * 1e3
            event = start_fields(run.messages, run.about)
            event |= {"start_time": started, "end_time": started + duration, "duration": duration}
            event |= answer_fields(response)
            if error is not None:
                event["error"] = described(error)
            if incomplete:
                event["metadata"] = {**event.get("metadata", {}), "incomplete": True}
            is_new = is_new_error(self.batcher, error, run.began)
            if is_new and is_news(self.batcher, answer_id(response), _NAME):
                push_within(self.batcher, event, run.sessions)
        except Exception as failure:  # whatever a strange answer raises when it is read
            count_failure(self.batcher, _NAME, failure)


def _is_of_a_model(frame: FrameType) -> bool:
    # Not by the model's class: this asks only what is below a claim, and a method of that name is rare.
    return frame.f_code.co_name in _MODEL_METHODS

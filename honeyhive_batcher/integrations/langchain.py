"""LangChain and LangGraph: one event for every call of a chat or completion model.

    handler = callback(batcher)
    await model.ainvoke(messages, config={"callbacks": [handler], "metadata": {"session_id": session_id}})

or, for every call of the program, `instrument(batcher)`.
"""

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, final

from honeyhive_batcher.integrations.langchain_runs import Runs
from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.producer import Producer

_handlers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""By the identity of their batcher, which lives as long as its handler."""
_hooks: list["_Hook"] = []
"""All that LangChain was given. One that has ended is taken again."""
_making = Lock()


def callback(batcher: Producer) -> Any:
    """Return a callback handler that tells `batcher` of every model call: the same one each time.

    It serves `invoke`, `ainvoke`, `stream`, `astream`, `batch` and graphs alike. The session is that of
    `config={"metadata": {"session_id": ...}}`, else the one that is bound where the call is made. The run's
    id becomes the event's `event_id`, that of the run around it the `parent_id`. Never raises into a run,
    and never waits.

    Raises:
        ImportError: `langchain-core` is not installed.
    """
    with _making:
        handler = _handlers.get(id(batcher))
        if handler is None:
            handler = _handlers[id(batcher)] = _handler_class()(Runs(batcher))
        return handler


def instrument(batcher: Producer) -> Callable[[], None]:
    """Tell `batcher` of every model call that begins from now on, wherever; return what ends that.

    A handler that is given to a call as well is called once.

    Raises:
        ImportError: `langchain-core` is not installed.
    """
    handler = callback(batcher)
    from langchain_core.tracers.context import register_configure_hook  # noqa: PLC0415 - optional

    with _making:
        hook = next((each for each in _hooks if each.handler in (None, handler)), None)
        if hook is None:
            hook = _Hook()
            _hooks.append(hook)
            register_configure_hook(hook, inheritable=True)
        hook.handler = handler
    return hook.end


@final
class _Hook:
    """What LangChain asks for a handler when a call begins.

    It keeps its hooks for ever, and only calls `get`. Unlike a context variable, this answers alike in every
    thread and context.
    """

    def __init__(self) -> None:
        self.handler: Any = None

    def get(self) -> Any:
        """Return the handler, or None."""
        return self.handler

    def end(self) -> None:
        """Answer None from now on."""
        self.handler = None


@cache
def _handler_class() -> Any:
    try:
        from langchain_core.callbacks import BaseCallbackHandler  # noqa: PLC0415 - optional
    except ImportError:
        raise ImportError("this needs LangChain: pip install langchain-core") from None

    class HoneyHiveCallback(BaseCallbackHandler):  # type: ignore[misc]  # Any here: optional
        """Hands what LangChain says of model calls on."""

        # In the caller's context, in which what it calls below finds the claim, and without a thread for it.
        run_inline = True
        ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

        def __init__(self, runs: Runs) -> None:
            self.runs = runs

        def on_chat_model_start(self, serialized: Any, messages: Any, **about: Any) -> None:
            self.runs.begin(serialized, messages, about, in_its_task=True)

        def on_llm_start(self, serialized: Any, prompts: Any, **about: Any) -> None:
            # LangChain calls this in a task of its own when the model is awaited.
            self.runs.begin(serialized, [prompts], about, in_its_task=False)

        def on_llm_end(self, response: Any, **about: Any) -> None:
            self.runs.end(response, about)

        def on_llm_error(self, error: BaseException, **about: Any) -> None:
            self.runs.fail(error, about)

    return HoneyHiveCallback

"""A small simulated chat service that logs every call of a model through a `Batcher`."""

import asyncio
from typing import Any, Final, final

from honeyhive_batcher.batcher import Batcher
from honeyhive_batcher.cli.demo.calls import Caller
from honeyhive_batcher.session import Session

_CUSTOMERS: Final = 4
"""Chats at once, each a session."""
_LABELLERS: Final = 12
"""Small calls at once, without a session."""
_SPEED: Final = 8
"""How much faster than real ones the simulated calls are; what they log is the time a real one takes."""
_READING: Final = 0.5
"""Seconds that a customer reads an answer before writing again."""


@final
class ChatService:
    """Serves customers until it is told to stop; logging is all it has to do with HoneyHive."""

    def __init__(self, batcher: Batcher, caller: Caller) -> None:
        self._batcher = batcher
        self._caller = caller
        self.sessions: dict[str, dict[str, Any]] = {}
        """What the sessions that came to their end said then."""

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_CUSTOMERS):
                tasks.create_task(self._customers())
            for _ in range(_LABELLERS):
                tasks.create_task(self._labels())

    async def _customers(self) -> None:
        while True:
            await self._chat()

    async def _chat(self) -> None:
        caller = self._caller
        question = caller.question()
        with self._batcher.session(session_name="support chat", inputs={"question": question}) as session:
            messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
            cost = 0.0
            model = caller.model()
            turns = caller.turns()
            for turn in range(turns):
                if turn:
                    await asyncio.sleep(_READING)
                    messages.append({"role": "user", "content": caller.follow_up()})
                while messages[-1]["role"] != "assistant":
                    event = caller.chat(model, list(messages))
                    await self._call(event)
                    cost += event["cost"]
                    response = event["response"]
                    if response is None:
                        continue  # the provider failed: it was logged, and is asked again
                    messages.append(response)
                    if "tool_calls" in response:
                        messages.append(caller.tool_result(response))
            self._end(session, {"answer": messages[-1]["content"]}, {"turns": turns, "cost": round(cost, 8)})

    def _end(self, session: Session, outputs: dict[str, Any], metrics: dict[str, Any]) -> None:
        session.outputs = outputs
        session.metrics = metrics
        self.sessions[session.session_id] = {"outputs": outputs, "metrics": metrics}

    async def _labels(self) -> None:
        while True:
            await self._call(self._caller.classification())

    async def _call(self, event: dict[str, Any]) -> None:
        """Take as long as the model would, and log the call. This is all that logging is."""
        await asyncio.sleep(event["duration"] / 1000 / _SPEED)
        self._batcher.push(event)

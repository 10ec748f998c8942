"""Tells the program what became of its events, and lets nothing come of what its callbacks raise."""

import asyncio
from typing import NoReturn, final

from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Fate, Settlement
from honeyhive_batcher.hooks import Hooks


def _raise(error: BaseException) -> NoReturn:
    raise error


@final
class Callbacks:
    """Calls `on_delivered`, `on_dropped` and `on_unconfirmed`, in the running event loop."""

    def __init__(self, hooks: Hooks, intake: Intake) -> None:
        self._hooks = hooks
        self._intake = intake

    def call(self) -> None:
        """Tell what they have not been told yet."""
        for settlement in self._intake.take_settlements():
            try:
                self._call_about(settlement)
            # Promise 1: a callback that raises is counted and hurts nothing. A cancellation that comes out
            # of a callback is its own, because nothing is awaited here.
            except (Exception, asyncio.CancelledError):
                self._intake.ledger.callback_errors += 1
            except BaseException as error:
                # `sys.exit()`, or a Ctrl-C that came meanwhile: it ends the program, but not through the
                # worker, who is needed to the end.
                self._intake.ledger.callback_errors += 1
                asyncio.get_running_loop().call_soon(_raise, error)

    def _call_about(self, settlement: Settlement) -> None:
        hooks = self._hooks
        match settlement.fate:
            case Fate.DELIVERED if hooks.on_delivered is not None:
                hooks.on_delivered(settlement.event_ids)
            case Fate.DROPPED if hooks.on_dropped is not None and settlement.reason is not None:
                hooks.on_dropped(settlement.event_ids, settlement.reason)
            case Fate.UNCONFIRMED if hooks.on_unconfirmed is not None:
                hooks.on_unconfirmed(settlement.event_ids)
            case _:
                pass

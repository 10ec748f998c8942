"""What a stretch of a process cost: CPU, wall time, memory at its peak, garbage collections."""

import contextlib
import gc
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def memory(field: str = "VmRSS") -> int:
    """Return a figure of this process's memory in bytes; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


class Meter:
    """Measures what happens inside `with`."""

    def __enter__(self) -> Self:
        gc.collect()
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")  # forget the peak so far
        self.full_collections = 0
        self.longest_pause = 0.0
        self._memory = memory()
        gc.callbacks.append(self._collected)
        self.began_at = time.monotonic()
        self._cpu = time.process_time()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.cpu = time.process_time() - self._cpu
        self.ended_at = time.monotonic()
        gc.callbacks.remove(self._collected)
        self.peak_growth = max(0, memory("VmHWM") - self._memory)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._collection_began = time.perf_counter()
            return
        self.longest_pause = max(self.longest_pause, time.perf_counter() - self._collection_began)
        self.full_collections += info["generation"] == 2

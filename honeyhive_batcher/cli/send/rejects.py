"""The file with the lines that were not delivered, as they were."""

from pathlib import Path
from typing import IO, Final, final

from honeyhive_batcher.cli.send.source import Source

_SUFFIX: Final = ".jsonl"


@final
class Rejects:
    """Takes lines byte for byte; the file is made when there is a first one."""

    def __init__(self, path: Path, *, numbered: bool) -> None:
        """Write to `path`; when there is such a file, to "NAME-2.jsonl" and so on if `numbered`."""
        self.path = path
        self.failure: str | None = None
        """Why lines could not be written; None while all is well."""
        self._numbered = numbered
        self._file: IO[bytes] | None = None

    @property
    def is_made(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def write(self, *parts: bytes) -> None:
        """Append bytes."""
        try:
            if self._file is None:
                self._file = self._make()
            self._file.write(b"".join(parts))
        except OSError as error:
            self.failure = error.strerror or type(error).__name__

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _make(self) -> IO[bytes]:
        """Open a new file: one from before may hold lines that somebody still needs."""
        path = self.path
        number = 1
        while True:
            mode = "wb" if path.exists() and not path.is_file() else "xb"  # /dev/null, a pipe
            try:
                made = path.open(mode, buffering=0)  # what is reported is written
            except FileExistsError:
                if not self._numbered:
                    raise
                number += 1
                path = self.path.with_name(f"{self.path.name.removesuffix(_SUFFIX)}-{number}{_SUFFIX}")
            else:
                self.path = path
                return made


def rejected_path(source: Source) -> Path:
    """Return where rejected lines go by default: beside the file, or here for what is no file."""
    if source.path is None:
        return Path(f"{Path(source.name).name}.rejected{_SUFFIX}")
    name = source.path.name.removesuffix(".gz").removesuffix(_SUFFIX)
    return source.path.with_name(f"{name}.rejected{_SUFFIX}")

"""Just enough of HTTP/1.1 to cut a stream of bytes into requests or responses."""

import gzip
import zlib
from typing import NamedTuple


class Message(NamedTuple):
    """A request or a response."""

    first_line: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Cutter:
    """Takes bytes as they come and gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with these bytes."""
        self._buffer += data
        found = []
        while (message := self._cut()) is not None:
            found.append(message)
        return found

    def _cut(self) -> Message | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first_line, *lines = bytes(buffer[:end]).split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        if headers.get(b"transfer-encoding") == b"chunked":
            return self._cut_chunks(first_line, headers, end + 4)
        size = int(headers.get(b"content-length", b"0"))
        if len(buffer) < end + 4 + size:
            return None
        body = bytes(buffer[end + 4 : end + 4 + size])
        del buffer[: end + 4 + size]
        return Message(first_line, headers, body)

    def _cut_chunks(self, first_line: bytes, headers: dict[bytes, bytes], at: int) -> Message | None:
        buffer, parts = self._buffer, []
        while True:
            end = buffer.find(b"\r\n", at)
            if end < 0:
                return None
            size = int(bytes(buffer[at:end]).split(b";")[0], 16)
            if len(buffer) < end + 2 + size + 2:
                return None
            parts.append(bytes(buffer[end + 2 : end + 2 + size]))
            at = end + 2 + size + 2
            if size == 0:
                del buffer[:at]
                return Message(first_line, headers, b"".join(parts))


def plain(message: Message) -> bytes:
    """Return the body without its compression."""
    match message.headers.get(b"content-encoding", b""):
        case b"gzip":
            return gzip.decompress(message.body)
        case b"deflate":
            return zlib.decompress(message.body)
        case b"zstd":
            return _unzstd(message.body)
        case _:
            return message.body


def _unzstd(body: bytes) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        return bytes(reader.read())

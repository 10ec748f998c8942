"""What each contestant's own service would answer, as far as its client reads it."""


def reply(first_line: bytes, events: int) -> bytes:
    """Return the body of a 200."""
    path = first_line.split(b" ")[1]
    if path.startswith(b"/1/batch/"):  # Honeycomb: a status for each event
        return b"[" + b",".join([b'{"status":202}'] * events) + b"]"
    if path.startswith((b"/v1/traces", b"/v1/logs", b"/api/public/otel")):  # OTLP: an empty message
        return b""
    if path == b"/info":  # LangSmith: with this its client compresses, as it does for its own service
        return b'{"instance_flags":{"zstd_compression_enabled":true}}'
    return b"{}"

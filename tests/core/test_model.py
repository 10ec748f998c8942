"""The nouns that hold content do not show it: error reporters show the variables of every frame."""

from honeyhive_batcher.core.encoding import Encoded
from honeyhive_batcher.core.model import Attempt, Batch, Fragment, GroupKey, Request, Response

CONTENT = b'{"content":"secret"}'


def test_what_holds_content_shows_its_size_and_nothing_of_it() -> None:
    key = GroupKey(session_id="s", properties=CONTENT)
    fragment = Fragment(CONTENT, "id", key, 1, 0.0, 20, closing=CONTENT, settled=True)
    shown = {
        repr(Encoded(CONTENT, "id", 0)): "<Encoded: 20 bytes>",
        repr(key): "<GroupKey s: 20 bytes>",
        repr(fragment): "<Fragment 1: 20 bytes, settled>",
        repr(
            Request(method="POST", path="/p", body=CONTENT, max_reply_bytes=1)
        ): "<Request POST /p: 20 bytes>",
        repr(Response(status=500, body=CONTENT)): "<Response 500: 20 bytes, retry_after=None>",
    }
    assert list(shown) == list(shown.values())
    assert "secret" not in repr(Attempt(batch=Batch(key=key, fragments=(fragment,))))

"""An event on its way through `put`, which waits for room, and raises where `push` answers."""

from msgspec import Struct

from honeyhive_batcher.core.encoding import Refusal
from honeyhive_batcher.core.fragment import Fragment
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.errors import ClosedError, EncodeError
from honeyhive_batcher.session import Session

_NO_EXCEPTIONS = (Admission.ACCEPTED, Admission.FILTERED, Admission.SAMPLED)


class Offer(Struct):
    """An event that waits for room."""

    fragment: Fragment
    session: Session | None
    admission: Admission = Admission.QUEUE_FULL


def checked(admission: Admission, why: object = None) -> Admission:
    """Return the admission that is none of the exceptions of `put`.

    Raises:
        EncodeError: This can never be an event; `why` may be the `Refusal` that says so.
        ClosedError: The batcher is closing or closed.
    """
    if admission in _NO_EXCEPTIONS:
        return admission
    if admission is Admission.CLOSED:
        raise ClosedError("the batcher is closed: start it again to go on")
    message = "the encoded event does not fit into a request, or not into the queue"
    raise EncodeError(why.message if isinstance(why, Refusal) else message)

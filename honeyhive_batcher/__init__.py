"""An asyncio background batching exporter for HoneyHive's `POST /events/model/batch`.

Layout, in the order to read it:

    events      what a producer may push            core/     decides: no await, no clock, no I/O
    config      settings, units, defaults           runtime/  acts: worker, transport, life cycle
    errors      what a caller can act on            batcher   the facade; session: what calls share
    asgi        around an ASGI application          blocking  the facade for programs without a loop
    redaction   what must not leave                 gate      what an event passes before it is encoded
    testing     a local HoneyHive for tests         collector/  the local HoneyHive; cli/  the command
"""

from honeyhive_batcher.batcher import Batcher as Batcher
from honeyhive_batcher.blocking import BlockingBatcher as BlockingBatcher
from honeyhive_batcher.config import BatchLimits as BatchLimits
from honeyhive_batcher.config import Config as Config
from honeyhive_batcher.config import Defaults as Defaults
from honeyhive_batcher.config import EndpointSettings as EndpointSettings
from honeyhive_batcher.config import QueueLimits as QueueLimits
from honeyhive_batcher.config import Recording as Recording
from honeyhive_batcher.config import RetryLimits as RetryLimits
from honeyhive_batcher.config import Shutdown as Shutdown
from honeyhive_batcher.core.ledger import Statistics as Statistics
from honeyhive_batcher.core.model import Admission as Admission
from honeyhive_batcher.core.model import DropReason as DropReason
from honeyhive_batcher.core.model import Endpoint as Endpoint
from honeyhive_batcher.errors import BatcherError as BatcherError
from honeyhive_batcher.errors import ClosedError as ClosedError
from honeyhive_batcher.errors import ConfigError as ConfigError
from honeyhive_batcher.errors import EncodeError as EncodeError
from honeyhive_batcher.errors import InternalError as InternalError
from honeyhive_batcher.events import ModelEvent as ModelEvent
from honeyhive_batcher.events import SessionProperties as SessionProperties
from honeyhive_batcher.model_call import ModelCall as ModelCall
from honeyhive_batcher.redaction import redact as redact
from honeyhive_batcher.runtime.flush_result import FlushResult as FlushResult
from honeyhive_batcher.session import Session as Session
from honeyhive_batcher.version import __version__ as __version__

__all__ = [
    "Admission",
    "BatchLimits",
    "Batcher",
    "BatcherError",
    "BlockingBatcher",
    "ClosedError",
    "Config",
    "ConfigError",
    "Defaults",
    "DropReason",
    "EncodeError",
    "Endpoint",
    "EndpointSettings",
    "FlushResult",
    "InternalError",
    "ModelCall",
    "ModelEvent",
    "QueueLimits",
    "Recording",
    "RetryLimits",
    "Session",
    "SessionProperties",
    "Shutdown",
    "Statistics",
    "__version__",
    "redact",
]

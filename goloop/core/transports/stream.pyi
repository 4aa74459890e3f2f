from typing import Any, final

from goloop.core.transports.stream_output import StreamOutput

@final
class StreamTransport(StreamOutput):
    max_size: int
    def __init__(
        self,
        loop: Any,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> None: ...

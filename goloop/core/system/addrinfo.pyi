from typing import Any

def literal_addrinfo(
    host: object, port: object, family: object, kind: object, proto: object, flags: object
) -> list[Any] | None: ...

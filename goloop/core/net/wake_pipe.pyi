from typing import final

@final
class WakePipe:
    def release(self) -> None: ...

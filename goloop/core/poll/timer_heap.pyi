from typing import final

@final
class TimerHeap:
    def __len__(self) -> int: ...

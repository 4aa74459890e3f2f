"""What each small application of the frameworks answers: a number's square, after a sleep, a child task and a thread.

The class of the loop that it ran on comes in the header x-loop.
"""

from __future__ import annotations

import asyncio
import sys

import loops


def up() -> None:
    """Say that this process serves, and on which loop; in one piece, as processes share the pipe."""
    sys.stdout.write(f"app: up on {loops.class_name()}\n")
    sys.stdout.flush()


async def square(number: int) -> tuple[str, dict[str, str]]:
    """Return the body and the headers of the answer."""

    async def child() -> int:
        await asyncio.sleep(0.001 * (number % 10))
        return number

    doubled = await asyncio.create_task(child())
    body = await asyncio.to_thread(lambda: str(doubled * number))
    return body, {"x-loop": loops.class_name()}

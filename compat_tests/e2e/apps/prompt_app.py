"""A prompt by prompt_toolkit, which completes in a thread while a task prints above it."""

from __future__ import annotations

import asyncio

import loops
from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout


async def main() -> None:
    async def tick() -> None:
        while True:
            print(f"tick on {loops.class_name()}.")
            await asyncio.sleep(0.05)

    session: PromptSession[str] = PromptSession()
    with patch_stdout():
        ticking = asyncio.create_task(tick())
        said = await session.prompt_async("say: ")
        ticking.cancel()
    print(f"said {said} on {loops.class_name()}.")


if __name__ == "__main__":
    asyncio.run(main())

"""A Textual application: it shows its loop, counts in a worker, and ends at the key q."""

from __future__ import annotations

import asyncio

import loops
from textual.app import App, ComposeResult
from textual.widgets import Label


class Loop(App[str]):
    BINDINGS = [("q", "leave", "Leave")]  # noqa: RUF012  (textual's way)

    def compose(self) -> ComposeResult:
        yield Label("begun", id="label")

    async def on_mount(self) -> None:
        self.run_worker(self.count())

    async def count(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0.01)
        seen = await asyncio.to_thread(str.upper, "counted")
        self.query_one("#label", Label).update(f"{seen} on {loops.class_name()}.")

    def action_leave(self) -> None:
        self.exit(loops.class_name())


if __name__ == "__main__":
    print(f"left {Loop().run()}.")

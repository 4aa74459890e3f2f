"""asyncio's transports."""

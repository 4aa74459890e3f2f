"""The page: what the door shows, for browsers. aiohttp serves it, on an asyncio loop in a thread of its own.

server: the thread and its loop. app: what there is under which address. checks: who may have it. history: the numbers
of the last minutes. rows: a snapshot as the tables have it. static: the page itself, and the libraries that it uses.
"""

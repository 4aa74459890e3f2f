"""The door: a Unix socket by which others of the same user look into this process, served by threads of its own.

folder: where the sockets are, and whose they may be. wire: requests and answers. server: the threads. answers: what
can be asked for. Only plain threads and blocking calls: it must work while every loop and worker is stuck.
"""

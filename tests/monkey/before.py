"""Objects and references from before the standard library was patched."""

import atexit
import queue
import select
import socket
import subprocess
import threading
import time

sleep = time.sleep
select_ = select.select
lock = threading.Lock()
acquire, release = lock.acquire, lock.release
rlock = threading.RLock()
condition = threading.Condition()
event = threading.Event()
fifo: queue.Queue[object] = queue.Queue()
simple: queue.SimpleQueue[object] = queue.SimpleQueue()
poll = select.poll()
left, right = socket.socketpair()
recv = left.recv
atexit.register(left.close)
atexit.register(right.close)
thread_ends = threading.Event()
thread = threading.Thread(target=thread_ends.wait, daemon=True)
thread.start()
types = {
    "socket": socket.socket,
    "raw socket": socket.SocketType,
    "Lock": threading.Lock,
    "RLock": threading.RLock,
    "lock": type(lock),
    "sleep": time.sleep,
    "SimpleQueue": queue.SimpleQueue,
    "local": threading.local,
    "Thread": threading.Thread,
    "Popen": subprocess.Popen,
}

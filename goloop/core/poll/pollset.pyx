# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""A loop's poll set: which descriptors it watches, and its doors to the netpoller (park, wake, inbox).

The native half is native/netpoll.c. Slots belong to the thread that runs the loop; only post() and
unpark() may be called from elsewhere. Transports own a descriptor edge-triggered (attach); everything
else watches level-triggered (watch), as asyncio's add_reader promises.
"""

cimport cython
from libc.errno cimport EBADF, EEXIST, ENOENT, errno
from libc.stdlib cimport free, realloc

from goloop.core.system.posix cimport os_error
from goloop.core.system.trace cimport the_tracer

cdef extern from "fcntl.h" nogil:
    enum:
        F_GETFD
    int fcntl(int fd, int command, ...)

cdef uint32_t OWNED = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET


gl_netpoller_trace(the_tracer())


cdef uint32_t fork_epoch() noexcept nogil:
    return gl_fork_epoch()


cdef const gl_offload *offload_ops() noexcept nogil:
    return &gl_offload_ops


cdef void *conn_owner(gl_node *node) noexcept nogil:
    return gl_conn_owner(node)


def stats():
    """Counters of the process's netpoller: events seen, stale events dropped, open poll sets, running; and of the
    connections that it receives and sends for: how many, bytes received and sent, times it looked into one.
    """
    cdef gl_stats st
    cdef gl_offload_stats io
    with nogil:
        gl_get_stats(&st)
        gl_offload_get_stats(&io)
    return {
        "fires": st.fires, "stale": st.stale, "pollsets": st.pollsets, "running": bool(st.running),
        "offloaded": io.open, "received": io.received, "sent": io.sent, "serves": io.serves,
    }


cdef int64_t netpoller_cpu() noexcept nogil:
    cdef gl_stats st
    gl_get_stats(&st)
    return st.cpu


def send_collected():
    """Send what all loops have collected to send, as far as the kernel takes it. Any thread."""
    with nogil:
        gl_send_collected()


@cython.final
cdef class PollSet:
    def __cinit__(self):
        cdef gl_pollset *ps
        self.free_slot = -1
        self.readers = []
        self.writers = []
        self.owners = []
        self.fileobjs = []
        self.disabled = []
        with nogil:
            ps = gl_pollset_open(&self.inbox)
        if ps == NULL:
            raise os_error(errno)
        self.ps = ps

    def __dealloc__(self):
        if self.ps != NULL:
            with nogil:
                gl_conn_forget(self.ps)
                gl_pollset_close(self.ps)
        free(self.slots)
        free(self.by_fd)

    @property
    def parks(self):
        """How often the loop went to sleep."""
        return self.ps.parks if self.ps != NULL else 0

    @property
    def epfd(self):
        """The epoll descriptor; -1 once closed."""
        return self.ps.epfd if self.ps != NULL else -1

    def __len__(self):
        return self.used

    # ---------------------------------------------------------------- parking
    cdef bint post(self, gl_node *node) noexcept nogil:
        cdef gl_pollset *ps = self.ps      # type-stable: at worst the wake-up is for its next user, and spurious
        cdef int pushed = gl_inbox_push(&self.inbox, node)
        if pushed == GL_INBOX_FIRST and ps != NULL:
            gl_unpark(ps)
        return pushed != GL_INBOX_CLOSED

    cdef gl_node *take_inbox(self) noexcept nogil:
        return gl_inbox_take(&self.inbox)

    cdef bint inbox_empty(self) noexcept nogil:
        return gl_inbox_empty(&self.inbox)

    cdef gl_node *take_completions(self) noexcept nogil:
        return gl_inbox_take(&self.ps.completions)

    cdef bint completions_empty(self) noexcept nogil:
        return gl_inbox_empty(&self.ps.completions)

    cdef int park(self, int64_t deadline) noexcept nogil:
        return gl_park(self.ps, deadline)

    cdef int poll(self, int64_t deadline, epoll_event *events, int room) noexcept nogil:
        return gl_poll(self.ps, deadline, events, room)

    cdef void unpark(self) noexcept nogil:
        cdef gl_pollset *ps = self.ps
        if ps != NULL:
            gl_unpark(ps)

    cdef gl_outbox *open_outbox(self) noexcept nogil:
        return gl_pollset_outbox(self.ps)

    cdef int begin_batch(self) noexcept nogil:
        return gl_netpoller_tick()

    cdef void nudge(self) noexcept nogil:
        gl_netpoller_nudge()

    cdef void send_batch(self, gl_outbox *box) noexcept nogil:
        gl_outbox_send(box)

    cdef void send_one(self, gl_outbox *box, uint32_t i) noexcept nogil:
        gl_outbox_send_one(box, i)

    cdef void send_collected(self) noexcept nogil:
        cdef gl_pollset *ps = self.ps
        if ps != NULL and ps.outbox != NULL:
            gl_outbox_send_for(ps.outbox)

    cdef int harvest(self, epoll_event *events, int room) noexcept nogil:
        return epoll_wait(self.ps.epfd, events, room, 0)

    cdef bint foreign(self) noexcept nogil:
        return gl_pollset_foreign(self.ps)

    cdef int check_not_foreign(self) except -1:
        if gl_pollset_foreign(self.ps):
            raise RuntimeError("this event loop belongs to the parent process: make a new one after a fork")
        return 0

    cdef gl_node *shut(self):
        """Close for good: refuse posts, forget every slot. Returns what was posted and never taken."""
        cdef gl_pollset *ps = self.ps
        cdef gl_node *left
        cdef int i
        if ps == NULL:
            return NULL
        left = gl_inbox_close(&self.inbox)
        self.ps = NULL
        with nogil:
            gl_conn_forget(ps)
            gl_pollset_close(ps)
        for i in range(self.slot_count):
            self.slots[i].fd = -1
        for i in range(self.by_fd_len):
            self.by_fd[i] = -1
        self.used = 0
        self.readers = []
        self.writers = []
        self.owners = []
        self.fileobjs = []
        self.disabled = []
        return left

    # ------------------------------------------------------------------ slots
    cdef int find(self, int fd) noexcept:
        return self.by_fd[fd] if 0 <= fd < self.by_fd_len else -1

    cdef int reserve(self, int fd) except -1:
        """The index of the descriptor's slot, which is taken now if it has none."""
        cdef int index = self.find(fd)
        if index >= 0:
            return index
        if fd >= self.by_fd_len:
            if fcntl(fd, F_GETFD) < 0:
                raise os_error(errno)      # no such descriptor: do not make the table that long for it
            self.grow_by_fd(fd)
        if self.free_slot < 0:
            self.grow_slots()
        index = self.free_slot
        self.free_slot = self.slots[index].next_free
        self.slots[index].fd = fd
        self.slots[index].mask = 0
        self.by_fd[fd] = index
        self.used += 1
        return index

    cdef int grow_by_fd(self, int fd) except -1:
        cdef Py_ssize_t i, want = max(<Py_ssize_t>fd + 1, 2 * self.by_fd_len, 64)
        cdef int *by_fd = <int *>realloc(self.by_fd, want * sizeof(int))
        if by_fd == NULL:
            raise MemoryError
        self.by_fd = by_fd
        for i in range(self.by_fd_len, want):
            by_fd[i] = -1
        self.by_fd_len = <int>want
        return 0

    cdef int grow_slots(self) except -1:
        cdef int i, want = max(2 * self.slot_count, 16)
        cdef Slot *slots = <Slot *>realloc(self.slots, want * sizeof(Slot))
        if slots == NULL:
            raise MemoryError
        self.slots = slots
        for i in range(self.slot_count, want):
            slots[i] = Slot(-1, 1, 0, i + 1 if i + 1 < want else -1)     # the new part of the free list
            self.readers.append(None)
            self.writers.append(None)
            self.owners.append(None)
            self.fileobjs.append(None)
        self.free_slot = self.slot_count
        self.slot_count = want
        return 0

    cdef uint32_t wanted_mask(self, int index) noexcept:
        """What the owner and the watchers of a slot want to know; 0: nothing."""
        cdef uint32_t mask = OWNED if self.owners[index] is not None else 0
        if self.readers[index] is not None or self.writers[index] is not None:
            mask &= ~<uint32_t>EPOLLET   # a watcher's contract is level-triggered; an owner bears it
            if self.readers[index] is not None and self.is_enabled(self.readers[index]):
                mask |= EPOLLIN
            if self.writers[index] is not None and self.is_enabled(self.writers[index]):
                mask |= EPOLLOUT
        return mask

    cdef int update(self, int index) except -1:
        """Tell the kernel what the slot wants now; free the slot when that is nothing."""
        cdef Slot *slot = &self.slots[index]
        cdef uint32_t mask = self.wanted_mask(index)
        if mask == 0:
            if self.readers[index] is not None or self.writers[index] is not None:
                return self.unregister_disabled(slot)
            return self.release_slot(index)
        self.check_not_foreign()
        self.register(index, mask)
        slot.mask = mask
        self.changed = True
        return 0

    cdef int register(self, int index, uint32_t mask) except -1:
        cdef Slot *slot = &self.slots[index]
        cdef int op = EPOLL_CTL_MOD if slot.mask else EPOLL_CTL_ADD
        if self.control(op, index, mask) == 0:
            return 0
        # The descriptor was closed and used again behind our back (the kernel forgot the old file),
        # or it was registered under this number before (a duplicate keeps the file alive).
        if errno == ENOENT and op == EPOLL_CTL_MOD:
            op = EPOLL_CTL_ADD
        elif errno == EEXIST and op == EPOLL_CTL_ADD:
            op = EPOLL_CTL_MOD
        else:
            raise os_error(errno)
        slot.generation += 1
        if self.control(op, index, mask) < 0:
            raise os_error(errno)
        return 0

    cdef int control(self, int op, int index, uint32_t mask) noexcept:
        """One epoll_ctl; 0, or -1 with errno."""
        cdef epoll_event event
        event.events = mask
        event.data.u64 = (<uint64_t>self.slots[index].generation << 32) | <uint32_t>index
        return epoll_ctl(self.ps.epfd, op, self.slots[index].fd, &event)

    cdef int release_slot(self, int index) except -1:
        cdef Slot *slot = &self.slots[index]
        # A forked child shares the parent's epoll: taking the descriptor out would blind the parent.
        if slot.mask and not self.foreign():
            if epoll_ctl(self.ps.epfd, EPOLL_CTL_DEL, slot.fd, NULL) < 0 and errno != ENOENT and errno != EBADF:
                raise os_error(errno)
        self.by_fd[slot.fd] = -1
        slot.fd = -1
        slot.mask = 0
        slot.generation += 1
        slot.next_free = self.free_slot
        self.free_slot = index
        self.used -= 1
        self.fileobjs[index] = None
        return 0

    cdef Slot *event_slot(self, uint64_t key) noexcept:
        """The slot an event is for; NULL for a stale one, and for the bell's."""
        cdef Slot *slot
        if <uint32_t>key >= <uint32_t>self.slot_count:
            return NULL
        slot = &self.slots[<uint32_t>key]
        return slot if slot.fd >= 0 and slot.generation == <uint32_t>(key >> 32) else NULL

    # ------------------------------------------------------- watchers, owners
    cdef object add_watcher(self, int fd, Side side, object handle, object fileobj):
        """Install a level-triggered watcher; returns the one it replaces, or None."""
        cdef int index = self.reserve(fd)
        cdef list table = self.readers if side == READ else self.writers
        cdef object before = table[index]
        table[index] = handle
        try:
            self.update(index)
        except BaseException:
            table[index] = before
            if self.readers[index] is None and self.writers[index] is None and self.owners[index] is None:
                self.release_slot(index)
            raise
        if fileobj is not None:
            self.fileobjs[index] = fileobj
        return before

    cdef object remove_watcher(self, int fd, Side side):
        """Remove a watcher; returns it, or None where there was none."""
        cdef int index = self.find(fd)
        cdef list table
        cdef object before
        if index < 0:
            return None
        table = self.readers if side == READ else self.writers
        before = table[index]
        if before is not None:
            table[index] = None
            self.update(index)
        return before

    cdef int own(self, int fd, object owner) except -1:
        """Make a transport the owner of the descriptor for its life. Nothing is watched before resume()."""
        self.owners[self.reserve(fd)] = owner
        return 0

    cdef int attach(self, int fd, object owner) except -1:
        """Give the descriptor an owner, and watch: edge-triggered, both directions."""
        cdef int index = self.reserve(fd)
        cdef object before = self.owners[index]
        self.owners[index] = owner
        try:
            self.update(index)
        except BaseException:
            self.owners[index] = before
            if self.readers[index] is None and self.writers[index] is None and before is None:
                self.release_slot(index)
            raise
        return 0

    cdef int detach(self, int fd, object owner) except -1:
        cdef int index = self.find(fd)
        if index >= 0 and self.owners[index] is owner:
            self.owners[index] = None
            self.update(index)
        return 0

    cdef bint is_enabled(self, object watcher) noexcept:
        cdef object other
        for other in self.disabled:
            if other is watcher:
                return False
        return True

    cdef int unregister_disabled(self, Slot *slot) except -1:
        """Keep the slot, but hear nothing of its descriptor."""
        if slot.mask:
            self.check_not_foreign()
            if epoll_ctl(self.ps.epfd, EPOLL_CTL_DEL, slot.fd, NULL) < 0 and errno != ENOENT and errno != EBADF:
                raise os_error(errno)
            slot.mask = 0
        return 0

    cdef int set_disabled(self, object handle, bint on) except -1:
        """Stop polling for a watcher, or begin again: it is level-triggered, and its callback cannot run now."""
        cdef int index
        cdef bint known = False
        for index in range(self.slot_count):
            if self.readers[index] is handle or self.writers[index] is handle:
                if not known:
                    known = True
                    if on:
                        self.disabled.append(handle)
                if self.slots[index].fd >= 0:
                    if not on:
                        self.disabled = [other for other in self.disabled if other is not handle]
                    self.update(index)
        if not on and not known:
            self.disabled = [other for other in self.disabled if other is not handle]  # it was removed meanwhile
        return 0

    cdef bint suspend(self, int fd, object owner) except -1:
        """Stop watching for an owner that stays one: the netpoller does so from now on. False: not possible."""
        cdef int index = self.find(fd)
        cdef Slot *slot
        if index < 0 or self.owners[index] is not owner or self.foreign():
            return False
        if self.readers[index] is not None or self.writers[index] is not None:
            return False
        slot = &self.slots[index]
        if slot.mask and epoll_ctl(self.ps.epfd, EPOLL_CTL_DEL, fd, NULL) < 0:
            raise os_error(errno)
        slot.mask = 0
        return True

    cdef int resume(self, int fd, object owner) except -1:
        """Watch for the owner, after own() or suspend(): edge-triggered, both directions. What is ready is an event."""
        cdef int index = self.find(fd)
        if index >= 0 and self.owners[index] is owner and not self.foreign():
            self.update(index)
        return 0

    cdef object owner_of(self, int fd):
        cdef int index = self.find(fd)
        return None if index < 0 else self.owners[index]

    def fd_of(self, fileobj):
        """The descriptor under which an object was watched that has been closed since; -1: none."""
        cdef int index
        for index in range(self.slot_count):
            if self.slots[index].fd >= 0 and self.fileobjs[index] is fileobj:
                return self.slots[index].fd
        return -1

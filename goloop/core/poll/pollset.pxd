from libc.stdint cimport int64_t, uint32_t, uint64_t

from goloop.core.system.trace cimport gl_tracer


cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLPRI
        EPOLLRDHUP
        EPOLLET
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)


cdef extern from "sys/uio.h" nogil:
    ctypedef struct iovec "struct iovec":
        void *iov_base
        size_t iov_len


cdef extern from "../poll/native/outbox.h" nogil:
    enum:
        GL_WRITES
        GL_PIECES
        GL_BY_NETPOLLER
    ctypedef struct gl_write:
        int fd
        int done
        Py_ssize_t sent
        int error
        int pieces
        size_t length
        void *owner
        iovec *iov
        void **held
    ctypedef struct gl_outbox:
        uint32_t count
        uint32_t batch
        gl_write *writes
    uint32_t gl_outbox_add(
        gl_outbox *box, uint32_t place, int fd, void *owner, void *held, const void *data, size_t length, size_t most
    )
    void gl_outbox_begin(gl_outbox *box)
    void gl_outbox_empty(gl_outbox *box)


cdef extern from "../poll/native/netpoll.h" nogil:
    ctypedef struct gl_node:
        gl_node *next
        void *item
    ctypedef struct gl_inbox:
        gl_node *head
    ctypedef struct gl_pollset:
        int epfd
        gl_inbox completions
        gl_outbox *outbox
        uint32_t loop
        uint64_t parks
    ctypedef struct gl_stats:
        uint64_t fires
        uint64_t stale
        uint32_t pollsets
        uint32_t running
        int64_t cpu
    enum:
        GL_INBOX_CLOSED
        GL_INBOX_FIRST
    int gl_inbox_push(gl_inbox *inbox, gl_node *node)
    int gl_inbox_empty(gl_inbox *inbox)
    gl_node *gl_inbox_take(gl_inbox *inbox)
    gl_node *gl_inbox_close(gl_inbox *inbox)
    gl_pollset *gl_pollset_open(gl_inbox *inbox)
    void gl_pollset_close(gl_pollset *ps)
    bint gl_pollset_foreign(const gl_pollset *ps)
    int gl_park(gl_pollset *ps, int64_t deadline)
    int gl_poll(gl_pollset *ps, int64_t deadline, epoll_event *events, int room)
    void gl_unpark(gl_pollset *ps)
    void gl_netpoller_trace(gl_tracer *tracer)
    uint32_t gl_fork_epoch()
    gl_outbox *gl_pollset_outbox(gl_pollset *ps)
    int gl_netpoller_tick()
    void gl_netpoller_nudge()
    void gl_send_collected()
    void gl_outbox_send(gl_outbox *box)
    void gl_outbox_send_one(gl_outbox *box, uint32_t i)
    void gl_outbox_send_for(gl_outbox *box)
    void gl_get_stats(gl_stats *out)


cdef extern from "../poll/native/stream_offload.h" nogil:
    ctypedef struct gl_conn:
        uint32_t generation
    ctypedef struct gl_offload:
        gl_conn *(*open)(gl_pollset *ps, int fd, void *owner, bint short_read_drains) noexcept nogil
        Py_ssize_t (*recv)(gl_conn *conn, void *room, size_t length) noexcept nogil
        bint (*readable)(gl_conn *conn) noexcept nogil
        uint32_t (*unread)(gl_conn *conn) noexcept nogil
        void (*look)(gl_conn *conn) noexcept nogil
        size_t (*room)(gl_conn *conn) noexcept nogil
        void (*put)(gl_conn *conn, const void *data, size_t length) noexcept nogil
        void (*kick)(gl_conn *conn) noexcept nogil
        int (*failed)(gl_conn *conn) noexcept nogil
        bint (*take_back)(gl_conn *conn) noexcept nogil
        size_t (*unsent)(gl_conn *conn, const char **data) noexcept nogil
        void (*close)(gl_conn *conn, uint32_t generation) noexcept nogil
    ctypedef struct gl_offload_stats:
        uint64_t received
        uint64_t sent
        uint64_t serves
        uint32_t open
    const gl_offload gl_offload_ops
    void *gl_conn_owner(gl_node *node)
    void gl_conn_forget(gl_pollset *ps)
    void gl_offload_get_stats(gl_offload_stats *out)


# What one descriptor of a poll set is registered for. Owned by the loop: only the thread that runs the
# loop reads or writes slots, so none of this is atomic.
cdef struct Slot:
    int fd                # -1: free
    uint32_t generation   # bumped when the slot is freed or its descriptor turns out to be another file
    uint32_t mask         # what the kernel was told; 0: not registered
    int next_free


cdef enum Side:
    READ = 0
    WRITE = 1


cdef int64_t netpoller_cpu() noexcept nogil  # ns of processor time that the netpoller has used


cdef class PollSet:
    cdef gl_pollset *ps       # NULL once closed
    cdef gl_inbox inbox       # where other threads post; closed for good before `ps` is
    cdef Slot *slots
    cdef int slot_count
    cdef int free_slot        # head of the free list, -1: none
    cdef int used
    cdef bint changed         # something is watched that was not: the loop looks soon
    cdef int *by_fd           # slot index for each descriptor, -1: none
    cdef int by_fd_len
    cdef list readers         # level-triggered watchers, by slot: a Handle or None
    cdef list writers
    cdef list owners              # the edge-triggered transport that owns the descriptor, or None
    cdef list disabled            # watchers whose callback is stuck in a blocking call: not to be called meanwhile
    cdef list fileobjs            # what add_reader was given, to find a slot again after the object was closed

    # the inbox, parking and waking: C functions, so that other modules of the core reach the one netpoller
    cdef bint post(self, gl_node *node) noexcept nogil     # False: closed
    cdef gl_node *take_inbox(self) noexcept nogil
    cdef bint inbox_empty(self) noexcept nogil
    cdef gl_node *take_completions(self) noexcept nogil  # of the connections that the netpoller has
    cdef bint completions_empty(self) noexcept nogil
    cdef int park(self, int64_t deadline) noexcept nogil
    cdef int poll(self, int64_t deadline, epoll_event *events, int room) noexcept nogil
    cdef void unpark(self) noexcept nogil

    # the outbox, as functions for the same reason; see loop/outbox.pyx
    cdef gl_outbox *open_outbox(self) noexcept nogil        # NULL: no memory
    cdef int begin_batch(self) noexcept nogil               # 0, or the error with which the netpoller cannot be started
    cdef void nudge(self) noexcept nogil                    # the netpoller has something to do
    cdef void send_batch(self, gl_outbox *box) noexcept nogil
    cdef void send_one(self, gl_outbox *box, uint32_t i) noexcept nogil
    cdef void send_collected(self) noexcept nogil           # in the loop's place; any thread
    cdef int harvest(self, epoll_event *events, int room) noexcept nogil
    cdef bint foreign(self) noexcept nogil
    cdef int check_not_foreign(self) except -1

    cdef int find(self, int fd) noexcept
    cdef int reserve(self, int fd) except -1
    cdef int grow_by_fd(self, int fd) except -1
    cdef int grow_slots(self) except -1
    cdef uint32_t wanted_mask(self, int index) noexcept
    cdef int update(self, int index) except -1
    cdef int register(self, int index, uint32_t mask) except -1
    cdef int control(self, int op, int index, uint32_t mask) noexcept
    cdef int release_slot(self, int index) except -1
    cdef object add_watcher(self, int fd, Side side, object handle, object fileobj)
    cdef object remove_watcher(self, int fd, Side side)
    cdef int own(self, int fd, object owner) except -1
    cdef int attach(self, int fd, object owner) except -1
    cdef int detach(self, int fd, object owner) except -1
    cdef bint suspend(self, int fd, object owner) except -1
    cdef int resume(self, int fd, object owner) except -1
    cdef object owner_of(self, int fd)
    cdef bint is_enabled(self, object watcher) noexcept
    cdef int unregister_disabled(self, Slot *slot) except -1
    cdef int set_disabled(self, object handle, bint on) except -1
    cdef Slot *event_slot(self, uint64_t key) noexcept
    cdef gl_node *shut(self)


cdef uint32_t fork_epoch() noexcept nogil      # counts the forks between this process and the one that loaded us
cdef const gl_offload *offload_ops() noexcept nogil     # linked into this module, which has the netpoller
cdef void *conn_owner(gl_node *node) noexcept nogil

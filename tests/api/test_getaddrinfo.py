"""loop.getaddrinfo(): the answers of socket.getaddrinfo(), without a thread where nothing has to be looked up."""

import asyncio
import inspect
import itertools
import logging
import random
import socket
import sys
import threading

import pytest

import goloop
from goloop.core.system.addrinfo import is_literal, literal_addrinfo
from tests.helpers.outcomes import async_outcome_of, logged
from tests.helpers.recorders import Recorder
from tests.helpers.scripts import run_script
from tests.helpers.servers import ending
from tests.helpers.sockets import client, listening

LITERALS = [
    None,
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    b"192.0.2.7",
    "::1",
    "::",
    b"::1",
    "2001:DB8:0:0::0:1",
    "fe80::1",
    "::ffff:192.0.2.7",
    "::ffff:c000:207",
    "::192.0.2.7",
    # What inet_aton() takes
    "127.1",
    b"127.1",
    "0",
    "2130706433",
    "0x7f.0.0.1",
    "0X7F000001",
    "0177.0.0.01",
    "127.0.0.01",
    # With a scope
    "fe80::1%lo",
    b"fe80::1%lo",
    "fe80::1%1",
    "::1%1",
    "::1%lo",
    "fe80::1%no.such",
    "::1%lo%lo",
    "fe80::1%",
    "fe80::1%" + 40 * "x",
    "fe80::1%a..b",
]
OTHERS = [
    "",
    b"",
    "localhost",
    b"localhost",
    "*",
    " 127.0.0.1",
    "127.0.0.1 ",
    "127.0.0.1 x",
    "127.0.0.1\t",
    b"127.0.0.1 ",
    "::1 ",
    "127.0.0.1.",
    "127.0.0.256",
    "08.0.0.1",
    "4294967296",
    "1.2.3.4.5",
    "0x",
    "deadbeef",
    "[::1]",
    ":::",
    "1:2",
    "%lo",
    "fe80::1%" + 70 * "x",
    "::" + 70 * "0",
    "0x" + 70 * "0",
    "0." + 300 * "0",
    "127.0.0.1\0",
    "127.0.0.1\0x",
    b"127.0.0.1\0x",
    "::1\0",
    "\uff11\uff12\uff17.0.0.1",  # idna makes digits of them
    "127\u30020\u30020\u30021",  # idna makes dots of them
    "::1%é",
    "bücher.invalid",
    "xn--bcher-kva.invalid",
    "a..b",
    ".",
    70 * "x",
    "\ud800",
    b"\xff",
    127,
    1.5,
    bytearray(b"127.0.0.1"),
    ("127.0.0.1",),
    type("Text", (str,), {})("127.0.0.1"),
    type("Bytes", (bytes,), {})(b"127.0.0.1"),
]
NUMBERS = [None, 80, 0, 65535, "80", b"80", "00080", "65535"]
OTHER_PORTS = [
    "",
    b"",
    "http",
    b"http",
    "no-such-service",
    -1,
    "-1",
    "+80",
    " 80",
    "80 ",
    "8_0",
    "0x50",
    65536,
    "65536",
    99999,
    1 << 31,
    1 << 64,
    -(1 << 64),
    "000000080",
    "80\0",
    b"80\0x",
    "٨٠",
    "\ud800",
    True,
    False,
    80.0,
    bytearray(b"80"),
    type("Number", (int,), {})(80),
    type("Text", (str,), {})("80"),
    socket.SOCK_STREAM,
]
FAMILIES = [socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
KINDS = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET]
PROTOCOLS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, 255, 262]
FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_NUMERICHOST,
    socket.AI_NUMERICSERV,
    socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    socket.AI_V4MAPPED,
    socket.AI_V4MAPPED | socket.AI_ALL,
    socket.AI_CANONNAME,
    socket.AI_ADDRCONFIG,
    socket.AI_CANONNAME | socket.AI_ADDRCONFIG | socket.AI_V4MAPPED,
]
# Further values of each, one at a time
ODD = {
    "family": [-1, 2.0, "2", None, True, socket.AF_INET + 256, 1 << 40, -(1 << 40), socket.AF_PACKET, 31, 32],
    "type": [-1, 1.0, None, True, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.SOCK_RDM, 7, 8, 1 << 40],
    "proto": [-1, 6.0, None, True, 256, 511, 1 << 40],
    "flags": [-1, 0.0, None, True, 2, 64, 128, 512, 1 << 30, 1 << 40, socket.AddressInfo.AI_PASSIVE],
}


def answer(call, *args):
    """The repr of an answer, which tells an enum from a number; or what there is to an exception."""
    try:
        return repr(call(*args))
    except Exception as exc:
        return type(exc), exc.args


@pytest.fixture
def loop():
    loop = goloop.new_event_loop()
    loop.set_debug(False)
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def ask(loop):
    """loop.getaddrinfo() as a function, whose last four arguments are positional as those of socket's."""

    def ask(host, port, family=0, type=0, proto=0, flags=0):
        awaitable = loop.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        return loop.run_until_complete(awaitable)

    return ask


@pytest.fixture
def offloaded(loop, monkeypatch):
    """What the loop gives to its executor."""
    calls, original = [], loop.run_in_executor

    def run_in_executor(executor, function, *args):
        calls.append((function, *args))
        return original(executor, function, *args)

    monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
    return calls


def sure(coroutine):
    """The result of a coroutine that does not wait."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


# The answers


@pytest.mark.parametrize("host", LITERALS, ids=repr)
def test_a_literal_has_the_answer_of_the_socket_module_at_once(loop, offloaded, host):
    def ask(host, port, family, type, proto, flags):
        return sure(loop.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags))

    for args in itertools.product([host], NUMBERS, FAMILIES, KINDS, PROTOCOLS, FLAGS):
        assert answer(ask, *args) == answer(socket.getaddrinfo, *args), args
    assert offloaded == []


@pytest.mark.parametrize("host", ["127.0.0.1", b"::1", "127.1", None, "localhost"], ids=repr)
def test_ports_that_are_no_plain_number_have_the_answer_of_the_socket_module(ask, host):
    options = itertools.product([0, socket.AF_INET], [0, socket.SOCK_STREAM], [0], [0, socket.AI_NUMERICSERV])
    for args in itertools.product(OTHER_PORTS, options):
        args = host, args[0], *args[1]
        assert answer(ask, *args) == answer(socket.getaddrinfo, *args), args


@pytest.mark.parametrize("flags", [0, socket.AI_NUMERICHOST], ids=["any host", "numeric"])
def test_other_hosts_have_the_answer_of_the_socket_module(ask, flags):
    # A name without AI_NUMERICHOST is a question to a name server, which may answer once like that and once otherwise.
    hosts = OTHERS if flags else ["localhost", b"localhost", 127, 1.5, bytearray(b"::1"), "a..b", 70 * "x", "\ud800"]
    for args in itertools.product(hosts, [80, None, "80"], FAMILIES, [0, socket.SOCK_DGRAM], [0], [flags]):
        assert answer(ask, *args) == answer(socket.getaddrinfo, *args), args


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ODD for value in ODD[name]])
def test_odd_arguments_have_the_answer_of_the_socket_module(ask, name, value):
    for host, port in itertools.product(["127.0.0.1", "::1", None], [80, None]):
        args = {"family": 0, "type": 0, "proto": 0, "flags": 0, name: value}.values()
        expected = answer(socket.getaddrinfo, host, port, *args)
        assert [answer(ask, host, port, *args) for _ in range(2)] == [expected, expected]


def test_random_texts_are_literals_to_the_loop_when_they_are_to_libc():
    numeric = socket.AI_NUMERICHOST
    rng = random.Random(7)
    literals = 0
    for _ in range(30_000):
        host = rng.choice(["", "::", "fe80::", "127.", "0x", "1:2:3:4:5:6:"])
        host += "".join(rng.choices("0011279afx.:%", k=rng.randrange(9)))
        expected = answer(socket.getaddrinfo, host, 80, 0, 0, 0, numeric)
        found = answer(literal_addrinfo, host, 80, 0, 0, 0, numeric)
        assert found in (expected, repr(None)), host
        assert found == expected or not isinstance(expected, str), host
        literals += isinstance(expected, str)
    assert literals > 1000


def test_libc_is_asked_once_for_each_kind_of_question(ask):
    hosts = ["192.0.2.1", "192.0.2.2", b"192.0.2.3", "2001:db8::1", "2001:db8::2"]
    original, asked = socket.getaddrinfo.__code__, []

    def note(frame, event, _):
        if event == "call" and frame.f_code is original:
            asked.append(frame.f_locals["host"])

    sys.setprofile(note)
    try:
        for host, port in itertools.product(hosts, [1, "2", 3]):
            ask(host, port, proto=socket.IPPROTO_UDPLITE)
    finally:
        sys.setprofile(None)
    assert asked == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize("host", OTHERS, ids=ascii)
def test_a_host_that_libc_might_look_up_is_no_literal(host):
    assert literal_addrinfo(host, 80, 0, 0, 0, 0) is None


@pytest.mark.parametrize("port", OTHER_PORTS, ids=ascii)
def test_a_port_that_libc_might_look_up_is_no_literal(port):
    assert literal_addrinfo("127.0.0.1", port, 0, 0, 0, 0) is None


def test_each_answer_is_a_list_of_its_own(ask):
    first, second = ask("127.0.0.1", 80), ask("127.0.0.1", 80)
    first.clear()
    assert second == ask("127.0.0.1", 80) == socket.getaddrinfo("127.0.0.1", 80)


# The coroutine


def test_it_is_a_coroutine_function(loop):
    coroutine = loop.getaddrinfo("127.0.0.1", 80)
    assert inspect.iscoroutine(coroutine) and inspect.iscoroutinefunction(loop.getaddrinfo)
    coroutine.close()


def test_its_coroutine_is_a_task_like_any_other(both):
    async def scenario(loop):
        ask = loop.getaddrinfo
        return [
            await asyncio.create_task(ask("127.0.0.1", 80)),
            await asyncio.wait_for(ask("::1", 80), 10),
            *await asyncio.gather(ask("127.0.0.1", 1), asyncio.ensure_future(ask("127.1", 1))),
        ]

    assert len(both(scenario)) == 4


def test_a_task_that_was_cancelled_before_it_began_asks_nothing(both):
    async def scenario(loop):
        task = asyncio.create_task(loop.getaddrinfo("127.0.0.1", 80))
        task.cancel()
        return await async_outcome_of(task)

    assert both(scenario) == ("CancelledError", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost"])
def test_a_closed_loop_resolves_nothing(both, host):
    def scenario(loop):
        loop.close()
        loop.getaddrinfo(host, 80).send(None)

    assert both(scenario).text == "Event loop is closed"


@pytest.mark.parametrize("slow", [0, 60])
def test_debug_mode_logs_what_is_asked_and_how_long_it_took(both, slow):
    async def scenario(loop):
        loop.slow_callback_duration = slow
        with logged(logging.DEBUG) as lines:
            await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        return [(level, line.split(" took ")[0]) for level, line in lines if "ddress info" in line]

    question = f"127.0.0.1:80, type={socket.SOCK_STREAM!r}"
    assert both(scenario, debug=True) == [
        ("DEBUG", f"Get address info {question}"),
        ("DEBUG" if slow else "INFO", f"Getting address info {question}"),
    ]


# What takes the short way


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.1", None], ids=repr)
def test_connections_and_servers_at_literals_need_no_thread(loop, offloaded, host):
    async def scenario():
        try:
            server = await loop.create_server(asyncio.Protocol, host, 0)
        except OSError:
            pytest.skip(f"no {host} on this machine")
        connect_to = host or "127.0.0.1"
        family = socket.AF_INET6 if ":" in connect_to else socket.AF_INET
        sockets = [sock for sock in server.sockets if sock.family == family]
        port = sockets[0].getsockname()[1]
        async with ending(server):
            transport, _ = await loop.create_connection(asyncio.Protocol, connect_to, port, local_addr=(connect_to, 0))
            peers = [transport.get_extra_info("peername")]
            transport.close()
            with client(family) as sock:
                await loop.sock_connect(sock, (connect_to, port))
                peers.append(sock.getpeername())
        datagrams, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, (connect_to, 0), (connect_to, port)
        )
        peers.append(datagrams.get_extra_info("peername"))
        datagrams.close()
        return peers, port

    peers, port = loop.run_until_complete(scenario())
    assert [peer[1] for peer in peers] == [port] * 3
    assert offloaded == []


def test_a_scoped_address_needs_no_thread_to_be_connected_to(loop, offloaded):
    async def scenario():
        with listening(socket.AF_INET6, ("::1", 0)) as server, client(socket.AF_INET6) as sock:
            await loop.sock_connect(sock, ("::1%1", server.getsockname()[1]))
            return sock.getpeername()[0]

    try:
        assert loop.run_until_complete(scenario()) == "::1"
    except OSError as exc:
        pytest.skip(f"no ::1 on this machine: {exc}")
    assert offloaded == []


def test_names_and_services_are_looked_up_in_the_executor(loop, ask, offloaded):
    ask("localhost", 80)
    ask("127.0.0.1", "http")
    assert offloaded == [
        (socket.getaddrinfo, "localhost", 80, 0, 0, 0, 0),
        (socket.getaddrinfo, "127.0.0.1", "http", 0, 0, 0, 0),
    ]


# Replacements are asked


def test_a_subclass_resolves_for_its_connections(both):
    def scenario(loop):
        class Resolving(type(loop)):
            asked = ()

            async def getaddrinfo(self, host, port, **options):
                self.asked += ((host, port),)
                return await super().getaddrinfo("127.0.0.1", port, **options)

        async def connect(loop):
            with listening() as server:
                port = server.getsockname()[1]
                transport, _ = await loop.create_connection(Recorder, "127.1", port)
                transport.close()
                return loop.asked == (("127.1", port),), transport.get_extra_info("peername") == ("127.0.0.1", port)

        subclass = Resolving()
        subclass.set_debug(False)
        try:
            return subclass.run_until_complete(connect(subclass))
        finally:
            subclass.run_until_complete(subclass.shutdown_default_executor())
            subclass.close()

    assert both(scenario) == (True, True)


@pytest.mark.parametrize("module", ["socket", "_socket"])
def test_a_replacement_of_the_resolver_is_asked_about_literals_in_a_thread(both, monkeypatch, module):
    async def scenario(loop):
        threads = set()

        def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
            threads.add(threading.get_ident())
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

        before = await loop.getaddrinfo("127.0.0.1", 80)
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.getaddrinfo", getaddrinfo)
            replaced = await loop.getaddrinfo("127.0.0.1", 80)
        return before == await loop.getaddrinfo("127.0.0.1", 80), replaced, threading.get_ident() in threads

    same, replaced, here = both(scenario)
    assert same and replaced[0][4] == ("192.0.2.1", 80) and not here


def test_a_replacement_from_before_goloop_was_imported_is_asked():
    script = """
        import functools, socket, threading

        original = socket.getaddrinfo

        @functools.wraps(original)
        def getaddrinfo(*args):
            print(threading.current_thread() is threading.main_thread())
            return original(*args)

        socket.getaddrinfo = getaddrinfo
        import goloop

        loop = goloop.new_event_loop()
        loop.set_debug(False)
        for _ in range(2):
            print(loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80)) == original("127.0.0.1", 80))
        loop.close()
    """
    assert run_script(script)[:2] == (0, "False\nTrue\n" * 2)


def test_audit_hooks_hear_of_literals_and_can_refuse_them():
    script = """
        import socket, sys
        import goloop

        heard = []

        def hook(event, args):
            if event == "socket.getaddrinfo":
                heard.append((*args[:2], *map(int, args[2:])))
                if args[1] == 1:
                    raise PermissionError("no")

        loop = goloop.new_event_loop()
        loop.set_debug(False)
        questions = [("127.0.0.1", 80, 0, 0, 0, 0), (b"::1", None, socket.AF_INET6, socket.SOCK_RAW, 17, 1)]
        questions += [("127.1", None, 0, socket.SOCK_STREAM, 6, 0), *questions]
        sys.addaudithook(hook)
        for host, port, family, kind, proto, flags in questions:
            try:
                socket.getaddrinfo(host, port, family, kind, proto, flags)
            except OSError:
                pass
        expected, heard = heard, []
        for host, port, family, kind, proto, flags in questions:
            try:
                loop.run_until_complete(
                    loop.getaddrinfo(host, port, family=family, type=kind, proto=proto, flags=flags)
                )
            except OSError:
                pass
        print(heard == expected, len(heard))
        try:
            loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 1))
        except PermissionError as exc:
            print(exc)
        loop.close()
    """
    assert run_script(script)[:2] == (0, "True 5\nno\n")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "1", "0x7f.1", "0177.0.0.1", "255.255.255.255", "256.1.1.1", "1.2.3.4.5", "1.2.3.4 x"),
        *("::1", "::ffff:1.2.3.4", "fe80::1%1", "fe80::1%lo", ":", "1:2:3", "localhost", "a.b", "", " ", "127.0.0.1."),
        *(b"127.1", b"::1", b"localhost"),
    ],
)
def test_a_literal_is_what_libc_takes_without_a_lookup(host):
    try:
        socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        taken = False
    else:
        taken = True
    assert is_literal(host) == taken


@pytest.mark.parametrize("host", [None, 1, "caf\xe9", "127.0.0.1\0x", bytearray(b"127.0.0.1"), "\ud800"])
def test_what_is_no_host_in_ascii_is_no_literal(host):
    assert not is_literal(host)

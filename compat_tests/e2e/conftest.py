"""What the end-to-end tests share: the runner on the loop under test, certificates, database servers."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "apps")]

import loops  # noqa: E402  (the folders are on the path from here on)
import services  # noqa: E402

trustme = pytest.importorskip("trustme")

T = TypeVar("T")
LIMIT = 60.0  # seconds for what a test runs on its loop; pytest-timeout's limit is twice as long


def pytest_report_header() -> str:
    return f"loop under test: {loops.NAME} ({loops.CLASS})"


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine on the loop under test within LIMIT; nothing may go to the loop's exception handler."""

    def run(main: Coroutine[Any, Any, T]) -> T:
        wrong: list[dict[str, Any]] = []

        async def bounded() -> T:
            loop = asyncio.get_running_loop()
            assert loops.class_name() == loops.CLASS
            loop.set_exception_handler(lambda _, context: wrong.append(context))
            async with asyncio.timeout(LIMIT):
                return await main

        with asyncio.Runner(loop_factory=loops.factory()) as runner:
            result = runner.run(bounded())
        assert wrong == []
        return result

    return run


@pytest.fixture(scope="session")
def authority() -> Any:
    """A certificate authority that lives as long as the tests."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority: Any) -> ssl.SSLContext:
    """A client's context that trusts the authority and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def certificate_files(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a certificate for this machine and of its key, for servers started as commands."""
    folder = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return folder / "chain.pem", folder / "key.pem"


@pytest.fixture(scope="session")
def postgres(authority: Any) -> Iterator[services.Postgres]:
    with services.postgres(authority) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(authority: Any) -> Iterator[services.Redis]:
    with services.redis(authority) as server:
        yield server

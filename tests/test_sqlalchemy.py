"""SQLAlchemy's asyncio extension runs its synchronous code in greenlets of its own: they work inside of ours."""

import asyncio

import pytest

import goloop
from goloop import go, wait

pytest.importorskip("aiosqlite")
sqlalchemy = pytest.importorskip("sqlalchemy")

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column  # noqa: E402
from sqlalchemy.util import await_only, greenlet_spawn  # noqa: E402

LIMIT = 30  # seconds


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def use(path, n=10):
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all([Item(name=f"item {i}") for i in range(n)])
            await session.commit()
            rows = await session.execute(sqlalchemy.select(Item).order_by(Item.id))
            return [item.name for item in rows.scalars()]
    finally:
        await engine.dispose()


EXPECTED = [f"item {i}" for i in range(10)]


def test_in_coroutine_goroutines(tmp_path):
    gs = [go(use, tmp_path / f"{i}.db") for i in range(5)]
    assert [g.result(LIMIT) for g in gs] == [EXPECTED] * 5


def test_in_plain_goroutines_through_wait(tmp_path):
    gs = [go(lambda i=i: wait(use(tmp_path / f"{i}.db"))) for i in range(5)]
    assert [g.result(LIMIT) for g in gs] == [EXPECTED] * 5


def test_both_kinds_beside_a_running_loop(tmp_path):
    async def main():
        plain = go(lambda: wait(use(tmp_path / "plain.db")))
        coroutine = go(use, tmp_path / "coroutine.db")
        return await use(tmp_path / "loop.db"), await plain, await coroutine

    assert goloop.run(main()) == (EXPECTED, EXPECTED, EXPECTED)


def test_parking_in_a_greenlet_inside_of_a_goroutine():
    """What runs in SQLAlchemy's greenlet may park as the goroutine does: the greenlet is what parks."""
    chan, order = goloop.Chan(), []

    def synchronous(i):
        order.append(("begins", i))
        value = await_only(asyncio.sleep(0.001, i))
        order.append(("awaited", i))
        return value + 1

    def plain(i):
        async def coroutine():
            return await greenlet_spawn(synchronous, i)

        result = wait(coroutine())
        chan.send(result)
        return result

    gs = [go(plain, i) for i in range(10)]
    received = sorted(chan.recv(LIMIT) for _ in gs)
    assert received == sorted(g.result(LIMIT) for g in gs) == list(range(1, 11))
    assert len(order) == 20


def test_a_goroutine_parks_inside_of_a_nested_greenlet():
    import greenlet

    chan, back = goloop.Chan(), goloop.Chan()

    def inner(i):
        goloop.sleep(0.001)
        chan.send(i)
        greenlet.getcurrent().parent.switch("half-way")
        goloop.gosched()
        return back.recv(LIMIT)

    def outer(i):
        nested = greenlet.greenlet(inner)
        assert nested.switch(i) == "half-way"
        goloop.sleep(0.001)
        return nested.switch()

    gs = [go(outer, i) for i in range(5)]
    assert sorted(chan.recv(LIMIT) for _ in gs) == list(range(5))
    for i in range(5):
        back.send(i * 10, LIMIT)
    assert sorted(g.result(LIMIT) for g in gs) == [0, 10, 20, 30, 40]

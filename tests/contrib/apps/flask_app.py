"""A Flask application with SQLAlchemy on sqlite."""

import atexit
import os
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from flask import Flask, Response, g, jsonify, request, send_file, stream_with_context
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = sqlalchemy.create_engine(f"sqlite:///{os.environ['TEST_FOLDER']}/flask.db", connect_args={"timeout": 30})
app = Flask(__name__)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


Base.metadata.create_all(engine)
atexit.register(engine.dispose)


@app.before_request
def begin() -> None:
    g.name = request.args.get("name", "")


@app.post("/items")
def create() -> Any:
    """DRF-style: JSON in, JSON out, and what Flask keeps for the request stays that request's."""
    before = g.name
    with Session(engine) as session:
        item = Item(name=request.get_json()["name"])
        session.add(item)
        session.commit()
        time.sleep(0.001)
        return jsonify(id=item.id, name=item.name, kept=g.name == before == request.args["name"]), 201


@app.get("/items")
def items() -> Any:
    with Session(engine) as session:
        return jsonify([item.name for item in session.scalars(sqlalchemy.select(Item).order_by(Item.id))])


@app.get("/stream/<int:count>")
def stream(count: int) -> Response:
    def produce() -> Iterator[str]:
        for i in range(count):
            time.sleep(0.001)
            yield f"{request.args['name']} {i}\n"

    return Response(stream_with_context(produce()))


@app.get("/file")
def file() -> Response:
    return send_file(__file__)

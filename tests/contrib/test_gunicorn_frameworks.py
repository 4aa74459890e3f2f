"""GoroutineWorker under Django and Flask applications, as they are written for any WSGI server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import goloop
from goloop import go
from tests.contrib.conftest import APPS, SECONDS
from tests.helpers.waiting import until


def get_json(server, path, **options):
    return json.loads(server.get(path, **options))


@pytest.fixture(scope="session")
def postgres():
    services = pytest.importorskip("services", reason="compat_tests/ is not part of an installed package")
    with services.postgres(trustme.CA()) as server:
        yield server


# ------------------------------------------------------------------------- Django
@pytest.fixture(params=["sqlite", "psycopg", "psycopg2"])
def django(request, gunicorn, tmp_path, monkeypatch):
    pytest.importorskip("django")
    monkeypatch.setenv("TEST_DRIVER", request.param)
    options = []
    if request.param != "sqlite":
        pytest.importorskip(request.param)
        server = request.getfixturevalue("postgres")
        fields = ("127.0.0.1", str(server.port), server.user, server.password, server.database)
        monkeypatch.setenv("TEST_POSTGRES", "|".join(fields))
    if request.param == "psycopg2":
        config = tmp_path / "gunicorn.conf.py"
        config.write_text(
            "from goloop import monkey\n\n\ndef post_fork(server, worker):\n    monkey.patch_psycopg2()\n"
        )
        options = ["--config", str(config)]
    _run_app()
    running = gunicorn("django_app:app", *options, env={"GOLOOP_MAXTHREADS": "4"})
    running.driver = request.param
    yield running
    if request.param != "sqlite":
        _run_app("drop")


def _run_app(*args):
    done = subprocess.run([sys.executable, APPS / "django_app.py", *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_django_serves_requests_with_queries_side_by_side(django):
    answers = goloop.map(lambda n: get_json(django, f"/add/text{n % 10}"), range(100), limit=40)
    assert sorted(answer["id"] for answer in answers) == list(range(1, 101))
    assert get_json(django, "/count") == {"count": 100}
    kind = {"sqlite": b"sqlite sqlite3.dbapi2"}.get(django.driver, f"postgresql {django.driver}".encode())
    assert django.get("/shown") == kind
    assert len(django.get("/stream/50").splitlines()) == 50
    django.stop()


def test_django_rolls_back_what_fails(django):
    get_json(django, "/add/kept")
    assert django.raw(b"GET /fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 500 ")
    assert get_json(django, "/count") == {"count": 1}
    assert django.command.end(15) == 0


def test_django_takes_uploads_and_sends_files(django):
    body = b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\n" + b"y" * 3_000_000 + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert django.get("/upload", method="POST", body=body, headers=headers) == b"y" * 3_000_000
    assert django.get("/download") == b"0123456789" * 30_000
    django.stop()


def test_django_answers_json_with_json(django):
    def post(connection, body, kind="application/json"):
        connection.request("POST", "/notes", body, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(answer.read())

    def many(i):
        with django.http() as connection:
            for n in range(5):
                status, note = post(connection, json.dumps({"text": f"{i} {n} \xe9"}))
                assert (status, note["text"]) == (201, f"{i} {n} \xe9")

    goloop.map(many, range(8))
    with django.http() as connection:
        assert post(connection, "{")[0] == 400
        assert post(connection, "[]")[0] == 400
        assert post(connection, "text=1", "text/plain")[0] == 415
    found = get_json(django, "/notes")
    assert len(found) == 40 and {note["text"] for note in found} == {
        f"{i} {n} \xe9" for i in range(8) for n in range(5)
    }


@pytest.mark.parametrize("django", ["psycopg", "psycopg2"], indirect=True)
def test_queries_that_wait_park(django, postgres):
    """More of them than there may be threads."""
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(7)")
        waiting = [go(django.get, "/wait/7") for _ in range(20)]
        until(lambda: _waiters(other) == 20)
        assert get_json(django, "/count") == {"count": 0}
        other.execute("SELECT pg_advisory_unlock(7)")
        assert [g.result(SECONDS) for g in waiting] == [b"got it"] * 20
    django.stop()


def _waiters(connection):
    return connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()[0]


# -------------------------------------------------------------------------- Flask
def test_flask_with_sqlalchemy(gunicorn):
    pytest.importorskip("flask")
    running = gunicorn("flask_app:app")

    def create(n):
        body, headers = json.dumps({"name": f"item {n}"}), {"Content-Type": "application/json"}
        with running.http() as connection:
            connection.request("POST", f"/items?name={n}", body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    made = [g.result(SECONDS) for g in [go(create, n) for n in range(100)]]
    assert all(status == 201 and item["kept"] and item["name"] == f"item {n}" for n, (status, item) in enumerate(made))
    assert sorted(get_json(running, "/items")) == sorted(f"item {n}" for n in range(100))
    streams = [go(running.get, f"/stream/50?name={n}") for n in range(50)]
    for n, g in enumerate(streams):
        assert g.result(SECONDS).splitlines() == [b"%d %d" % (n, i) for i in range(50)]
    assert running.get("/file") == Path(APPS / "flask_app.py").read_bytes()
    running.stop()

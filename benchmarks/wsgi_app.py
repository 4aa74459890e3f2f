"""A Django project in a file, for wsgi.py: a view that says hello, and two that ask PostgreSQL
twice, one of them by the ORM.

BENCH_POSTGRES: host, port, user and name of the database, with | between them. `python wsgi_app.py` makes its table.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

ROWS = 1000
NAMES = ("HOST", "PORT", "USER", "NAME")
where = os.environ.get("BENCH_POSTGRES", "|||").split("|")
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            **dict(zip(NAMES, where, strict=True)),
            "CONN_MAX_AGE": None,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    MIDDLEWARE=[],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the benchmark",
)
django.setup()


class Note(models.Model):
    text = models.CharField(max_length=100)

    class Meta:
        app_label = "notes"


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello, world!", content_type="text/plain")


def orm(request: HttpRequest) -> HttpResponse:
    one, other = (Note.objects.get(pk=random.randint(1, ROWS)) for _ in range(2))
    return JsonResponse({one.pk: one.text, other.pk: other.text})


def queries(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        texts = []
        for _ in range(2):
            cursor.execute("SELECT id, text FROM notes_note WHERE id = %s", [random.randint(1, ROWS)])
            texts.append(cursor.fetchone())
    return JsonResponse(dict(texts))


urlpatterns = [path("hello", hello), path("queries", queries), path("orm", orm)]
django_app = get_wsgi_application()
served = 0


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Django's, and how many requests it has had by now."""
    global served
    if environ["PATH_INFO"] == "/served":
        start_response("200 OK", [("Content-Length", str(len(str(served))))])
        return [str(served).encode()]
    served += 1
    answer: Iterable[bytes] = django_app(environ, start_response)
    return answer


def main() -> int:
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    Note.objects.bulk_create(Note(text=f"note {n}") for n in range(ROWS))
    return 0


if __name__ == "__main__":
    sys.exit(main())

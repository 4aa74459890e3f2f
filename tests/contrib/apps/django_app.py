"""A whole Django project in a file: settings, a model, views, urls, the WSGI application."""

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator

if os.environ.get("TEST_DRIVER") == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django takes the newer one where it can

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

POSTGRES = os.environ.get("TEST_POSTGRES")  # host, port, user, password, name
if POSTGRES:
    names = ("HOST", "PORT", "USER", "PASSWORD", "NAME")
    database = {"ENGINE": "django.db.backends.postgresql", **dict(zip(names, POSTGRES.split("|"), strict=True))}
else:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["TEST_FOLDER"] + "/db.sqlite3"}
    database["OPTIONS"] = {"timeout": 30}  # type: ignore[assignment]
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": database},
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the tests",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"],
)
django.setup()


class Note(models.Model):
    text = models.CharField(max_length=100)

    class Meta:
        app_label = "notes"


def change_tables(drop: bool) -> None:
    with connection.schema_editor() as editor:
        (editor.delete_model if drop else editor.create_model)(Note)


def add(request: HttpRequest, text: str) -> HttpResponse:
    """Two queries."""
    note = Note.objects.create(text=text)
    return JsonResponse({"id": note.pk, "same": Note.objects.filter(text=text).count()})


def count(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"count": Note.objects.count()})


def fail(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        Note.objects.create(text="undone")
        raise ValueError("failed on purpose")


def wait(request: HttpRequest, lock: int) -> HttpResponse:
    """Until the test gives up an advisory lock of PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [lock])
        cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [lock])
    return HttpResponse("got it")


def stream(request: HttpRequest, lines: int) -> StreamingHttpResponse:
    def produce() -> Iterator[bytes]:
        for note in Note.objects.order_by("pk")[:lines].iterator():
            yield note.text.encode() + b"\n"

    return StreamingHttpResponse(produce())


def upload(request: HttpRequest) -> HttpResponse:
    (sent,) = request.FILES.getlist("file")
    return FileResponse(io.BytesIO(sent.read()), filename=sent.name)


def download(request: HttpRequest) -> FileResponse:
    content = tempfile.TemporaryFile()
    content.write(b"0123456789" * 30_000)
    content.seek(0)
    return FileResponse(content)


@csrf_exempt
def notes(request: HttpRequest) -> HttpResponse:
    """As an API of Django REST framework answers."""
    if request.method == "GET":
        return JsonResponse(list(Note.objects.order_by("pk").values("id", "text")), safe=False)
    if request.content_type != "application/json":
        return JsonResponse({"detail": f"Unsupported media type {request.content_type!r}"}, status=415)
    try:
        text = json.loads(request.body)["text"]
    except (ValueError, TypeError, KeyError):
        return JsonResponse({"text": ["This field is required."]}, status=400)
    note = Note.objects.create(text=text)
    return JsonResponse({"id": note.pk, "text": note.text}, status=201)


def shown(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{connection.vendor} {connection.Database.__name__}")


urlpatterns = [
    path("add/<str:text>", add),
    path("count", count),
    path("fail", fail),
    path("wait/<int:lock>", wait),
    path("stream/<int:lines>", stream),
    path("upload", upload),
    path("download", download),
    path("shown", shown),
    path("notes", notes),
]
app = get_wsgi_application()
if __name__ == "__main__":
    change_tables("drop" in sys.argv)

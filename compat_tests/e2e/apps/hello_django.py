"""Django by ASGI: see hello.py."""

from __future__ import annotations

import django
import hello
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="for a test")
django.setup()


async def square(request: HttpRequest, number: int) -> HttpResponse:
    body, headers = await hello.square(number)
    return HttpResponse(body, headers=headers)


urlpatterns = [path("square/<int:number>", square)]
app = get_asgi_application()

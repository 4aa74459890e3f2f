"""Who may have the page: requests that name this machine, and come from the page itself.

A browser that shows somebody else's page reaches this address too. Where that page's name has been made to lead here
(DNS rebinding), the Host header says so; where it asks across, Origin and Sec-Fetch-Site do. An answer allows nobody
else to read or to frame it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bracketed(host: str) -> str:
    """Return the host as an address has it."""
    return f"[{host}]" if ":" in host else host


def names(host: str) -> Callable[[str], bool]:
    """Return what tells whether a Host header may name a page that is served at this host.

    Never any name but localhost: whose a name is, and where it leads, others decide. The port is free: it is another
    one behind a tunnel.
    """
    address = None if host == "localhost" else ipaddress.ip_address(host)
    anywhere = address is not None and not address.is_loopback

    def allowed(header: str) -> bool:
        name = header.partition(":")[0]
        if header.startswith("["):
            name, closed, port = header[1:].partition("]")
            if not closed or (port and not port.startswith(":")):
                return False
        if name.lower() == "localhost":
            return True
        try:
            named = ipaddress.ip_address(name)
        except ValueError:
            return False
        return anywhere or named.is_loopback

    return allowed


def middleware(allowed: Callable[[str], bool]) -> Any:
    """Return what stands in front of every handler."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = _refusal(request, allowed)
            if refusal:
                return web.Response(status=403, text=refusal + "\n", headers=HEADERS)
            response = await handler(request)
        except web.HTTPException as exc:
            exc.headers.update(HEADERS)
            raise
        response.headers.update(HEADERS)
        return response

    return check


def _refusal(request: web.Request, allowed: Callable[[str], bool]) -> str | None:
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not allowed(hosts[0]):
        return "This page is asked for by the IP address of the machine, or as localhost."
    origins: Iterable[str] = request.headers.getall("Origin", [])
    if any(origin.partition("://")[2] != hosts[0] for origin in origins):
        return "Only this page itself may ask for its data."
    site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode")
    follows_link = mode == "navigate" and request.method == "GET"  # which shows the page, and tells its origin nothing
    if site not in ("none", "same-origin") and not follows_link:
        return "Only this page itself may ask for its data."
    return None

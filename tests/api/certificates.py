"""TLS contexts of an authority made up for the test run."""

import functools
import ssl

import trustme

HOST = "goloop.test"


@functools.cache
def _authority():
    authority = trustme.CA()
    return authority, authority.issue_cert(HOST, "127.0.0.1")


def server_context():
    """A new context for a server called ``HOST``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority()[1].configure_cert(context)
    return context


def client_context(*, trusting=True):
    """A new context for its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusting:
        _authority()[0].configure_trust(context)
    return context

"""`https://HOST[:PORT][/PATH]`: as `http:`, and the certificate is one that is trusted, and made out to HOST.

A private one is trusted where SSL_CERT_FILE (or SSL_CERT_DIR), in the caller's environment, names it or who issued it.
"""

from __future__ import annotations

from daemonize.readiness.http import Http


class Https(Http):
    """The certificate is always verified."""

    secure = True
    port = 443

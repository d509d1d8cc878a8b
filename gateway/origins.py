"""Which web pages may talk to the gateway from a browser.

Credentials travel in a header that only scripts set, never in cookies, so a foreign page has nothing to ride on. Still, a page
of another host is refused: the rule for WebSockets (where browsers ask nobody) is the same as for CORS.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def allowed(origin: str | None, host: str | None) -> bool:
    """Programs send no Origin; pages of the gateway's own host, and pages on this machine for a gateway on this machine."""
    if origin is None:
        return True
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host or ''}")
        if theirs.netloc and theirs.netloc.lower() == (host or "").lower():
            return True
        return _loopback(theirs.hostname) and _loopback(ours.hostname)
    except ValueError:
        return False


def _loopback(name: str | None) -> bool:
    if name is None:
        return False
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"

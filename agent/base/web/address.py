"""Addresses to listen on."""

from __future__ import annotations


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9840", "[::1]:9840" or ":9840" (every interface).

    Raises:
        ValueError: no port, or one outside 0 to 65535.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"must be host:port with a port from 0 to 65535, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes in brackets, as in [::1]:9840, got {text!r}")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The reverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""The TLS context of a web configuration."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from agent.base.errors import ConfigError
from agent.base.web.webconfig import TlsConfig

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}


def make_context(config: TlsConfig) -> ssl.SSLContext:
    """A server's context.

    Raises:
        ConfigError: a file cannot be read, or certificate and key do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.min_version]
    context.maximum_version = _VERSIONS[config.max_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if config.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if config.older_suites:
        context.set_ciphers(":".join(map(_openssl_name, config.older_suites)))
    elif config.cipher_suites:  # suites of 1.3 alone: nothing older can be spoken
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if len(config.curve_preferences) == 1:  # Python's interface takes one
        context.set_ecdh_curve(_CURVES[config.curve_preferences[0]])
    context.set_alpn_protocols(["http/1.1"])
    key = config.key.get_secret_value() if config.key is not None else None
    with _as_file(config.cert, config.cert_file) as cert_file, _as_file(key, config.key_file) as key_file:
        try:
            # an empty password, lest an encrypted key ask on the terminal
            context.load_cert_chain(cert_file, key_file, password=b"")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tls_server_config: {_name(config, 'cert')}, {_name(config, 'key')}: {_why(error)}"
            ) from None
    if config.client_auth_type != "NoClientCert":
        required = config.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(config.client_ca_file, cadata=config.client_ca)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tls_server_config: {_name(config, 'client_ca')}: {_why(error)}") from None
    return context


def has_allowed_name(certificate: Mapping[str, Any] | None, allowed: list[str] | None) -> bool:
    """Whether a verified client certificate (`SSLSocket.getpeercert()`) carries one of the names."""
    if allowed is None:
        return True
    names = certificate.get("subjectAltName", ()) if certificate else ()
    return any(name in allowed for _, name in names)


def _openssl_name(go_name: str) -> str:
    """`ECDHE-RSA-AES128-GCM-SHA256` of `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`."""
    exchange, _, cipher = go_name.removeprefix("TLS_").partition("_WITH_")
    if "CHACHA20" in cipher:
        cipher = "CHACHA20_POLY1305"
    return f"{exchange}_{cipher}".replace("AES_", "AES").replace("_", "-")


def _name(config: TlsConfig, what: str) -> str:
    return getattr(config, f"{what}_file") or f"the inline {what}"


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or 'not a PEM file that OpenSSL reads'}"
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def _as_file(text: str | None, path: str | None) -> Iterator[str]:
    """`path`, or a file in memory with `text`: OpenSSL's interface in Python takes files only."""
    if path is not None:
        yield path
        return
    handle = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(handle, (text or "").encode())
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)

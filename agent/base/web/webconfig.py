"""The web configuration file, in exporter-toolkit's format: TLS, basic authentication, headers, rate limit.

Differences from the original, all to the safe side: TLS 1.3 is the least version unless told, nothing below 1.2 is
offered; the client-certificate policies that verify nothing are refused; HTTP is 1.1 whatever `http2` says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from agent.base.config import Duration, Model, load

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_DEAREST = 15
"""bcrypt cost above which one check takes seconds: a single wrong password would keep a core busy."""

Version = Literal["TLS12", "TLS13"]
Curve = Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]
Cipher = Literal[
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
]


class TlsConfig(Model):
    """`tls_server_config`; each of certificate, key and client CA comes inline or from a file."""

    cert: str | None = Field(default=None, description="Server certificate chain, PEM.")
    key: SecretStr | None = Field(default=None, description="Its private key, PEM.")
    client_ca: str | None = Field(default=None, description="CA of client certificates, PEM.")
    cert_file: str | None = Field(default=None, description="File of the server certificate chain.")
    key_file: str | None = Field(default=None, description="File of its private key.")
    client_ca_file: str | None = Field(default=None, description="File of the CA of client certificates.")
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = Field(
        default="NoClientCert", description="Whether clients show a certificate."
    )
    client_allowed_sans: list[str] | None = Field(
        default=None, description="Names (DNS, IP, e-mail, URI), one of which the client's certificate must have."
    )
    min_version: Version = Field(default="TLS13", description="Least TLS version.")
    max_version: Version = Field(default="TLS13", description="Highest TLS version.")
    cipher_suites: list[Cipher] = Field(
        default_factory=list, description="Suites of TLS 1.2; empty is OpenSSL's list. Those of 1.3 are always offered."
    )
    prefer_server_cipher_suites: bool = Field(default=True, description="The server's order of suites decides.")
    curve_preferences: list[Curve] = Field(
        default_factory=list, description="The curve of ECDHE; more than one is OpenSSL's list, which has them all."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> TlsConfig:
        for name in ("cert", "key", "client_ca"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise ValueError(f"give {name} or {name}_file, not both")
        for name in ("cert", "key"):
            if getattr(self, name) is None and getattr(self, f"{name}_file") is None:
                raise ValueError(f"needs one of {name} and {name}_file")
        authority = self.client_ca is not None or self.client_ca_file is not None
        if authority and self.client_auth_type == "NoClientCert":
            raise ValueError("a client CA without client_auth_type verifies nobody: set RequireAndVerifyClientCert")
        if not authority and self.client_auth_type != "NoClientCert":
            raise ValueError(f"client_auth_type {self.client_auth_type} needs client_ca or client_ca_file")
        if self.client_allowed_sans is not None and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError("client_allowed_sans needs client_auth_type RequireAndVerifyClientCert")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        if self.max_version == "TLS12" and self.cipher_suites and not self.older_suites:
            raise ValueError("cipher_suites holds no suite of TLS 1.2, and max_version is TLS12")
        return self

    @property
    def older_suites(self) -> list[Cipher]:
        """Those of TLS 1.2."""
        return [name for name in self.cipher_suites if name.startswith("TLS_ECDHE_")]


class Headers(Model):
    """Headers that may be added to every answer, by their HTTP names."""

    content_security_policy: str = Field(default="", alias="Content-Security-Policy")
    frame_options: Literal["", "deny", "sameorigin"] = Field(default="", alias="X-Frame-Options")
    content_type_options: Literal["", "nosniff"] = Field(default="", alias="X-Content-Type-Options")
    xss_protection: str = Field(default="", alias="X-XSS-Protection")
    strict_transport_security: str = Field(default="", alias="Strict-Transport-Security")

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable():
            raise ValueError("must be one line of ASCII")
        return value

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Those that are set; nosniff is sent anyway."""
        fields = type(self).model_fields
        given = {str(fields[name].alias): getattr(self, name) for name in fields if name != "content_type_options"}
        return tuple((name, value) for name, value in given.items() if value)


class HttpConfig(Model):
    """`http_server_config`."""

    http2: bool = Field(default=True, description="Accepted for compatibility; HTTP/1.1 is spoken.")
    headers: Headers = Field(default_factory=Headers, description="Headers added to every answer.")


class RateLimit(Model):
    """`rate_limit`: a token bucket over all clients."""

    interval: Duration = Field(default=0.0, ge=0, description="Time in which one request is earned; 0 is no limit.")
    burst: int = Field(default=0, ge=0, description="Requests that may come at once.")

    @model_validator(mode="after")
    def _lets_something_through(self) -> RateLimit:
        if self.interval and not self.burst:
            raise ValueError("burst 0 would refuse every request: set burst to 1 or more")
        return self


class WebConfig(Model):
    """The whole file."""

    tls_server_config: TlsConfig | None = Field(default=None, description="TLS; without it, plain HTTP.")
    http_server_config: HttpConfig = Field(default_factory=HttpConfig, description="HTTP details.")
    basic_auth_users: dict[str, SecretStr] = Field(default_factory=dict, description="bcrypt hash by user.")
    rate_limit: RateLimit = Field(default_factory=RateLimit, description="Most requests of all clients together.")

    @field_validator("basic_auth_users")
    @classmethod
    def _hashes(cls, users: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for user, secret in users.items():
            found = _BCRYPT.fullmatch(secret.get_secret_value())
            if not user or ":" in user:
                raise ValueError(f"user names are not empty and hold no colon, got {user!r}")
            if found is None:
                raise ValueError(f"{user}: what was got is no bcrypt hash; make one with: htpasswd -nBC 10 {user}")
            if not 4 <= int(found[1]) <= _DEAREST:
                raise ValueError(f"{user}: the bcrypt cost must be from 4 to {_DEAREST}, got {found[1]}")
        return users


def load_web_config(path: str | Path) -> WebConfig:
    """Read and check the file; relative file names in it are relative to its folder.

    Raises:
        ConfigError: every problem, with file and line.
    """
    config = load(WebConfig, path, environ={})
    tls = config.tls_server_config
    if tls is None:
        return config
    folder = Path(path).parent
    names = ("cert_file", "key_file", "client_ca_file")
    absolute = {name: str(folder / value) for name in names if (value := getattr(tls, name)) is not None}
    return config.model_copy(update={"tls_server_config": tls.model_copy(update=absolute)})

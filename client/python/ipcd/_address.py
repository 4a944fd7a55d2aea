"""Where the daemon is, and how to come there."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import List, Optional, Tuple

import grpc

from ._errors import InvalidArgument

_SYSTEM_SOCKET = "/run/ipcd/ipcd.sock"
_SOCKET_PATH_BYTES = 107  # what fits sockaddr_un's sun_path of 108 bytes with its final NUL; see unix(7)
_FRAME_BYTES = 32 << 20
_PEM_BYTES = 4 << 20

_OPTIONS: List[Tuple[str, object]] = [
    ("grpc.max_receive_message_length", _FRAME_BYTES),
    ("grpc.max_send_message_length", _FRAME_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_retries", 0),  # whether a call may be repeated is for this package to decide
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each client
    ("grpc.service_config_disable_resolution", 1),
]


@dataclass(frozen=True)
class TLS:
    """How client and daemon prove to each other over TCP who they are. Files are PEM.

    cert_file   the client's certificate, and those between it and the daemon's authority
    key_file    its private key
    ca_file     the authorities that may have signed the daemon's certificate; "": those that this host trusts
    server_name whom the daemon's certificate must name; "": the host of the address
    """

    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    server_name: str = ""

    @classmethod
    def from_environment(cls) -> TLS:
        """What IPCD_TLS_CERT, IPCD_TLS_KEY, IPCD_TLS_CA and IPCD_TLS_SERVER_NAME say."""
        names = ("IPCD_TLS_CERT", "IPCD_TLS_KEY", "IPCD_TLS_CA", "IPCD_TLS_SERVER_NAME")
        return cls(*(os.environ.get(name, "") for name in names))


def default_address() -> str:
    """The address in IPCD_ADDRESS; else, for an ordinary user, $XDG_RUNTIME_DIR/ipcd/ipcd.sock if that exists; else
    /run/ipcd/ipcd.sock."""
    address = os.environ.get("IPCD_ADDRESS", "")
    if address:
        return address
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(directory) and os.geteuid() != 0:
        path = os.path.join(directory, "ipcd", "ipcd.sock")
        if os.path.exists(path):
            return "unix://" + path
    return "unix://" + _SYSTEM_SOCKET


def parse(address: str) -> Tuple[bool, str]:
    """Whether an address is a unix socket's, and its path or host:port."""
    path = address
    is_unix = address.startswith(("unix:", "/"))
    if address.startswith("unix:"):
        path = address[len("unix:") :]
        path = path[2:] if path.startswith("//") else path
    if is_unix:
        if not os.path.isabs(path):
            raise InvalidArgument(
                f"address {address!r}: the socket's path must be absolute, as in unix://{_SYSTEM_SOCKET}"
            )
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            raise InvalidArgument(
                f"address {address!r}: a socket's path may have {_SOCKET_PATH_BYTES} bytes: use a shorter directory"
            )
        return True, path
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or (":" in host and not host.startswith("[")):
        raise InvalidArgument(
            f"address {address!r}: it must be a socket's path, such as unix://{_SYSTEM_SOCKET}, or host:port"
        )
    return False, address


def open_channel(address: str, tls: Optional[TLS], insecure: bool, user_agent: str) -> Tuple[grpc.Channel, str]:
    """A channel to the daemon, which connects at its first call, and the address in its one form."""
    is_unix, where = parse(address)
    options = list(_OPTIONS)
    if user_agent:
        options.append(("grpc.primary_user_agent", user_agent))
    if is_unix:
        if tls is not None:
            raise InvalidArgument(f"address {address!r}: TLS is for TCP; on a unix socket the kernel tells who calls")
        return grpc.insecure_channel("unix:" + where, options), "unix://" + where
    if tls is None and not insecure:
        found = TLS.from_environment()
        tls = found if found != TLS() else None
    if tls is not None and insecure:
        raise InvalidArgument("both TLS and plaintext (insecure) are asked for: choose one")
    if tls is not None:
        if tls.server_name:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.secure_channel(where, _credentials(tls), options), where
    if not insecure:
        raise InvalidArgument(
            f"address {address!r}: TCP needs TLS: give a certificate, its key and the daemon's authority "
            "(IPCD_TLS_CERT, IPCD_TLS_KEY, IPCD_TLS_CA); plaintext must be asked for (insecure) and is for loopback "
            "addresses only"
        )
    host = where.rpartition(":")[0].strip("[]")
    if not _loopback(host):
        raise InvalidArgument(
            f"address {address!r}: plaintext TCP is for loopback addresses only, such as 127.0.0.1; elsewhere use TLS"
        )
    return grpc.insecure_channel(where, options), where


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # what a name stands for is up to the host's configuration


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    if bool(tls.cert_file) != bool(tls.key_file):
        raise InvalidArgument(
            "a certificate and its key belong together: give both files, or neither "
            f"(certificate {tls.cert_file!r}, key {tls.key_file!r})"
        )
    authorities = tls.ca_file or ssl.get_default_verify_paths().cafile
    return grpc.ssl_channel_credentials(
        root_certificates=_pem("authorities", authorities) if authorities else None,
        private_key=_pem("private key", tls.key_file) if tls.key_file else None,
        certificate_chain=_pem("certificate", tls.cert_file) if tls.cert_file else None,
    )


def _pem(what: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(_PEM_BYTES + 1)
    except OSError as err:
        raise InvalidArgument(f"{what}: {err}") from err
    if len(text) > _PEM_BYTES or b"-----BEGIN " not in text:
        raise InvalidArgument(f"{what}: {path} must be PEM, with BEGIN blocks, of at most {_PEM_BYTES} bytes")
    return text

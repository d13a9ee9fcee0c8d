"""Checks of the way to a source, in the order in which a connection is made, and of what it answers."""

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from etl.config import Http, Source, read_token
from etl.errors import DataRefusedError, EtlError, UnavailableError
from etl.extract.client import Greeting, probe
from etl.health.finding import Finding, failed, ok, skipped, warning

CHECKS = ("token", "dns", "connection", "source", "clock")

_CERTIFICATE_DAYS = 14
_CLOCK_SECONDS = 60.0


def network_checks(source: Source, http: Http) -> Iterator[Finding]:
    """Check one source: each step is needed by those after it, save that a token is needed by the request alone."""
    name = source.name
    token: str | None = None
    try:
        token = read_token(source)
        yield ok("token", "there is one", name)
    except EtlError as error:
        yield failed("token", error, name)
    target = urlsplit(http.proxy or source.base_url)
    try:
        yield _dns(name, target)
        yield _connect(name, target, http)
    except EtlError as error:
        check = "dns" if error.code == "unknown_host" else "connection"
        yield failed(check, error, name)
        for skip in CHECKS[CHECKS.index(check) + 1 :]:
            yield skipped(skip, "the source cannot be reached", name)
        return
    if token is None:
        yield skipped("source", "there is no token to ask with", name)
        yield skipped("clock", "the source was not asked", name)
        return
    yield from _ask(source, token, http)


def _port(target: SplitResult) -> int:
    return target.port or (443 if target.scheme == "https" else 80)


def _dns(name: str, target: SplitResult) -> Finding:
    try:
        found = socket.getaddrinfo(target.hostname, _port(target), type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        message = f"the host name {target.hostname} is not known: check base_url, http.proxy and DNS"
        raise UnavailableError(message, code="unknown_host") from None
    addresses = sorted({str(entry[4][0]) for entry in found})
    return ok("dns", f"{target.hostname} is {', '.join(addresses)}", name)


def _connect(name: str, target: SplitResult, http: Http) -> Finding:
    where = f"{target.hostname}, port {_port(target)}"
    try:
        with socket.create_connection((target.hostname or "", _port(target)), http.connect_timeout) as plain:
            if http.proxy:
                return ok("connection", f"the proxy at {where} accepts connections", name)
            if target.scheme == "http":
                return ok("connection", f"{where} accepts connections; plain HTTP, without TLS", name)
            context = ssl.create_default_context(cafile=http.ca_bundle or DEFAULT_CA_BUNDLE_PATH)
            with context.wrap_socket(plain, server_hostname=target.hostname) as secured:
                return _certificate(name, where, secured)
    except ssl.SSLCertVerificationError as error:
        message = (
            f"the certificate of {where} is not to be trusted ({error.verify_message}): check base_url and the clock, "
            "or name your company's CA in http.ca_bundle"
        )
        raise UnavailableError(message, code="tls_untrusted") from None
    except ssl.SSLError:
        message = f"{where} does not speak TLS: check base_url, or what stands between here and there"
        raise UnavailableError(message, code="tls_failed") from None
    except OSError as error:
        what = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        message = f"{where} cannot be reached ({what}): check base_url, the network and firewalls"
        raise UnavailableError(message, code="connection_failed") from None


def _certificate(name: str, where: str, secured: ssl.SSLSocket) -> Finding:
    certificate = secured.getpeercert() or {}
    ends = ssl.cert_time_to_seconds(str(certificate.get("notAfter")))
    days = int((ends - time.time()) // 86_400)
    message = f"{where} speaks {secured.version()}; its certificate is valid for {days} days more"
    if days < _CERTIFICATE_DAYS:
        return warning(
            "connection", message, "whoever runs that server, or the proxy on the way, has to renew it", name
        )
    return ok("connection", message, name)


def _ask(source: Source, token: str, http: Http) -> Iterator[Finding]:
    try:
        greeting = probe(source, token, http)
    except EtlError as error:
        yield failed("source", error, source.name)
        yield skipped("clock", "the source did not answer as it should", source.name)
        return
    if greeting.is_list:
        yield ok("source", "accepts the token and this machine's address, and answers with a list", source.name)
    else:
        message = "the answer is not a list of numbers: check base_url, and what stands between here and the source"
        yield failed("source", DataRefusedError(message), source.name)
    yield _clock(source.name, greeting)


def _clock(name: str, greeting: Greeting) -> Finding:
    if greeting.date is None:
        return skipped("clock", "the source does not tell its time", name)
    skew = (datetime.now(UTC) - greeting.date).total_seconds()
    if abs(skew) <= _CLOCK_SECONDS:
        return ok("clock", "agrees with the source's, as far as a minute goes", name)
    return warning(
        "clock",
        f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the source's",
        "set it, and keep it right with NTP: the times of runs come from it",
        name,
    )

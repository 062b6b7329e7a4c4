"""Hosts and files that may be opened: those that the user names, not those that a STAC catalog names.

An item is untrusted text. Without a check, its links could send requests into the local network or
to the metadata service of a cloud, or open local devices.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

REMOTE = ("http", "https")
SCHEMES = (*REMOTE, "s3", "gs", "az", "abfs")
_EARTH_SEARCH = ("sentinel-cogs", "e84-earth-search-sentinel-data", "sentinel-s2-l2a")
DATA_HOSTS = {
    "earth-search.aws.element84.com": (
        *(f"{bucket}.s3.us-west-2.amazonaws.com" for bucket in _EARTH_SEARCH),
        *(f"s3://{bucket}" for bucket in (*_EARTH_SEARCH, "usgs-landsat")),
    ),
    "landsatlook.usgs.gov": ("s3://usgs-landsat",),
    "planetarycomputer.microsoft.com": ("*.blob.core.windows.net",),
    "stac.dataspace.copernicus.eu": ("s3://eodata", "eodata.dataspace.copernicus.eu"),
}
"""Hosts of files by host of a well-known STAC catalog."""
METADATA = ("fd00:ec2::254", "100.100.100.200")
"""Metadata services of clouds that are not at link-local addresses."""


def scheme(href: str) -> str:
    """Return the scheme of a URL in lower case, empty for paths."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", str(href))
    return match[1].lower() if match else ""


def local_path(href: str) -> str:
    """Return a link, of which a ``file:`` URL becomes a path."""
    if scheme(href) != "file":
        return href
    path = unquote(urlsplit(href).path)
    return path[1:] if path[2:3] == ":" else path


def scrub(text: object) -> str:
    """Return a text without query strings, fragments, user names and passwords of its URLs.

    Control characters and line breaks become blanks, since text of a server may be written to a log.
    """
    # JSON may have unpaired surrogates
    plain = str(text).encode("utf-8", "replace").decode("utf-8")
    bare = re.sub(r"(://)[^/\s@'\"]*@", r"\1", plain)
    bare = re.sub(r"[?#][\w.~%+-]+=[^\s'\"]*", "", bare)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", bare)


def host_of(href: str) -> str:
    """Return the host of a URL, ``scheme://bucket`` of an object store, empty for paths."""
    kind = scheme(href)
    if kind not in SCHEMES:
        return ""
    name = (urlsplit(str(href)).hostname or "").rstrip(".").lower()
    return name if kind in REMOTE else f"{kind}://{name}"


@dataclass(frozen=True)
class AllowList:
    """Hosts and files that may be opened for one source."""

    hosts: tuple[str, ...] = ()  # names, buckets as s3://bucket, or patterns as *.example.org
    files: bool = False  # local files may be opened
    # the links are from the user: items, or a local STAC catalog. Then all hosts are allowed except
    # metadata services and, for items from the web, hosts of private networks
    named: bool = False

    def refusal(self, href: str, *, origin: str = "") -> str:
        """Return the reason why a link must not be opened, empty if it may be.

        ``origin`` is the URL of the document with the link, such as the item.
        """
        kind = scheme(href)
        if not kind:
            return self._path(str(href))
        if kind not in SCHEMES:
            return f"scheme '{kind}' is not opened; allowed: {', '.join(SCHEMES)}"
        if not is_plain(href):
            return "the URL has no host, or characters that programs interpret in different ways"
        return self._host(host_of(href), host_of(origin), web=kind in REMOTE)

    def _path(self, path: str) -> str:
        if path.startswith("/vsi") or not self.files:
            return "a path on this machine in a STAC catalog of the web"
        if re.match(r"\w{2,}:", path):
            return "neither a URL nor a path"
        if Path(path).exists() and not Path(path).is_file():
            return "the path of a device or folder, not of a file"
        return ""

    def _host(self, host: str, origin: str, *, web: bool) -> str:
        if host in self.hosts:
            return ""
        addresses = _addresses(host) if web else ()
        reason = ""
        if any(
            a.is_link_local or a.is_multicast or a.is_unspecified or str(a) in METADATA
            for a in addresses
        ):
            reason = "is link-local or a metadata service"
        elif any(fnmatchcase(host, pattern) for pattern in self.hosts):
            return ""
        elif not self.named:
            reason = "is not a host of the source"
        elif origin and host != origin and any(not a.is_global for a in addresses):
            reason = "is in a private network, the item is not"
        remedy = f"allow it by hosts=['{host}'], in a catalog hosts: ['{host}']"
        return f"host '{host}' {reason}; {remedy}" if reason else ""


def allow_list_of(url: str, hosts: Sequence[str] = ()) -> AllowList:
    """Return the allow list of a STAC catalog; an empty URL stands for a list of items."""
    patterns = tuple(h.lower() for h in hosts)
    home = host_of(url)
    if not home:
        return AllowList(patterns, files=True, named=True)
    return AllowList((home, *DATA_HOSTS.get(home, ()), *patterns))


def is_plain(href: str) -> bool:
    """Return whether all programs read the same host from a URL."""
    try:
        parts = urlsplit(href)
        port_is_number = parts.port is None or parts.port >= 0
    except ValueError:
        return False
    host = parts.hostname or ""
    odd = re.search(r"[\s\\\x00-\x1f]", href) or not re.fullmatch(r"[\w.:%-]+", host, re.ASCII)
    return port_is_number and not odd


@lru_cache(4096)
def _addresses(host: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """Return the addresses of a host; none if it has none, or a proxy resolves it."""
    try:
        infos = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return ()
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
    return tuple(getattr(a, "ipv4_mapped", None) or a for a in addresses)

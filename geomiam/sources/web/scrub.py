"""Text about files and servers without secrets and control characters."""

from __future__ import annotations

import re


def scrub(text: object) -> str:
    """Return a text without query strings, fragments, user names and passwords of its URLs.

    Control characters and line breaks become blanks, since text of a server may be written to a log.
    """
    plain = (
        str(text).encode("utf-8", "replace").decode("utf-8")
    )  # JSON may have unpaired surrogates
    bare = re.sub(r"(://)[^/\s@'\"]*@", r"\1", plain)
    bare = re.sub(r"[?#][\w.~%+-]+=[^\s'\"]*", "", bare)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", bare)

"""Text about files and servers, without what must not be shown."""

from __future__ import annotations

import re


def scrub(text: object) -> str:
    """Return a text without what signs its URLs: query strings, fragments, user names, passwords.

    Control characters and line breaks become blanks: the text may come from a server and end in a log.
    """
    plain = str(text).encode("utf-8", "replace").decode("utf-8")  # JSON may have half characters
    bare = re.sub(r"(://)[^/\s@'\"]*@", r"\1", plain)
    bare = re.sub(r"[?#][\w.~%+-]+=[^\s'\"]*", "", bare)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", bare)

"""What a text that people wrote may look like."""

from __future__ import annotations

import re
import unicodedata

NODE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


def display_text(text: str, max_characters: int) -> bool:
    """Whether this can be shown as one line: something visible, not too long, no control or format-breaking characters."""
    if not text.strip() or len(text) > max_characters:
        return False
    # Cc: control; Cs: lone surrogates; Zl, Zp: line and paragraph separators. Format characters (Cf) stay: emoji need them.
    return text.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def is_slug(text: str) -> bool:
    return SLUG.fullmatch(text) is not None


def is_node_name(text: str) -> bool:
    """Whether a node, or a tag of one, may be called so: as host names are."""
    return NODE_NAME.fullmatch(text) is not None

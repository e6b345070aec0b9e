"""Take secrets out of a text that is to be kept.

Pure. What is no secret may be lost with one: a text that misses a few words is worth more than one
that tells a key. What tells which secret it was (`password=`, a user's name in a URL) stays.
"""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[redacted]"

# Stands for what was taken out while more is looked for; no shape goes across it, so that what was
# redacted before is never part of a secret again. Unicode has promised to give it no meaning.
_GONE: Final = "\U0010fffe"

_QUOTES: Final = r"[\\\"']{0,3}+"
_SAID: Final = _QUOTES + r"[ \t]{0,8}+(?:=>|:=|[:=])[ \t]{0,8}+"
_WORDS: Final = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token(?!s)|credentials?"
    r"|(?:api|access|private|signing|encryption|account)[-_ ]?key)[a-z0-9_-]{0,40}"
)
_KNOWN: Final = (
    r"gh[pousr]_[A-Za-z0-9]{16,}+|github_pat_\w{16,}+|glpat-[\w-]{12,}+|xox[a-z]-[\w-]{8,}+"
    r"|xapp-[\w-]{8,}+|hf_[A-Za-z0-9]{16,}+|npm_[A-Za-z0-9]{16,}+|pypi-[\w-]{16,}+"
    r"|AIza[\w-]{20,}+|ya29\.[\w.-]{8,}+|gsk_[A-Za-z0-9]{16,}+|SG\.[\w-]{8,}+\.[\w-]{8,}+"
    r"|dop_v1_[a-f0-9]{16,}+|whsec_[A-Za-z0-9+/=]{12,}+|(?:AKIA|ASIA)[A-Z0-9]{12,}+"
)


def _shape(secret: str, *, after: str = "") -> re.Pattern[str]:
    """A secret, and what stands before it and is kept; `~` is what is gone already."""
    return re.compile(
        f"(?P<keep>{after})(?:{secret})".replace("~", _GONE), re.IGNORECASE | re.MULTILINE
    )


# All of them take linear time: what is repeated is bounded, or ends at what cannot belong to it.
_SHAPES: Final = (
    # A private key, also one that was cut before its end.
    _shape(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[^-~]|-(?!----END ))*+(?:-----END [A-Z0-9 ]{0,60}-----)?"
    ),
    _shape(r"[^\n~]++", after=r"^(?:set-)?cookie:[ \t]*+"),
    _shape(
        r"[^\n\"'\\~]++",
        after=rf"\bauthorization{_SAID}{_QUOTES}(?:[a-z0-9-]{{1,20}}[ \t]++)?+",
    ),
    _shape(r"[\w.+/=:-]{8,}+", after=r"\bbearer[ \t]{1,8}+"),
    # The password in scheme://user:password@host.
    _shape(
        r"[^\s/?#\"'<>~]{1,512}(?=@)",
        after=r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/?#:@\"'<>~]{0,256}:",
    ),
    # A JSON Web Token, also one that was cut.
    _shape(r"\beyJ[\w-]{6,}+(?:\.[\w-]*+)++"),
    _shape(r"\b[spr]k[-_](?=[\w-]{16})(?=[a-z_-]{0,64}\d)[\w-]++"),
    _shape(rf"\b(?-i:{_KNOWN})"),
    # password=..., "api_key": "...", AWS_SECRET_ACCESS_KEY: ...; and signed addresses.
    _shape(r"(?:\\[^\n]|[^\"\\\n~])++", after=rf"{_WORDS}{_SAID}\""),
    _shape(r"(?:\\[^\n]|[^'\\\n~])++", after=rf"{_WORDS}{_SAID}'"),
    _shape(
        r"[^\s,;&\"'<>(){}~]++",
        after=rf"{_WORDS}{_SAID}(?:\\[\"'])?+",
    ),
    _shape(r"[\w%+/=-]{8,}+", after=r"\bsig(?:nature)?="),
)


def redact(text: str) -> str:
    """The text without keys, tokens and passwords of the usual shapes; redacting twice is once."""
    before, text = "", text.replace(REDACTED, _GONE)
    while before != text:  # what stood beside a secret may be seen to be one only now
        before = text
        for shape in _SHAPES:
            text = shape.sub(_without, text)
    return text.replace(_GONE, REDACTED)


def _without(found: re.Match[str]) -> str:
    return f"{found['keep']}{_GONE}"

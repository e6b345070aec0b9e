"""Secrets that are taken out of a text, wherever they stand in it."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from heartbit.core.redaction import REDACTED, redact

LETTERS = string.ascii_letters + string.digits
RANDOM = st.text(LETTERS, min_size=20, max_size=60)
KEY_BLOCK = "-----BEGIN RSA PRIVATE KEY-----\n{}\n{}==\n-----END RSA PRIVATE KEY-----"
# How a secret is written; what stands around it tells that it is one.
SHAPES = {
    "an API key of OpenAI": "sk-proj-7{}",
    "an API key of Anthropic": "sk-ant-api03-{}",
    "a key of Stripe": "rk_live_1{}",
    "a token of GitHub": "ghp_{}",
    "a token of GitLab": "glpat-{}",
    "a token of Slack": "xoxb-{}",
    "a token of Hugging Face": "hf_{}",
    "a key of Google": "AIza{}",
    "a bearer token": "Bearer {}",
    "a header": "Authorization: Basic {}",
    "a header in JSON": '{{"authorization": "Token {}"}}',
    "a cookie": "Set-Cookie: session={}; Path=/; HttpOnly",
    "a password in a URL": "postgresql://me:{}@db.example:5432/x",
    "a variable": "export AWS_SECRET_ACCESS_KEY={}",
    "a setting": "password = '{}'",
    "a member of JSON": '{{"api_key": "{}", "n": 1}}',
    "JSON inside of JSON": '"{{\\"client_secret\\": \\"{}\\"}}"',
    "YAML": "db:\n  password: {}\n",
    "an argument of an address": "https://x.example/a?access_token={}&page=2",
    "a signed address": "https://x.example/a?sig={}",
    "a web token": "eyJhbGciOiJIUzI1NiJ9.{}.abc",
    "a private key": KEY_BLOCK.replace("{}", "MIIE", 1),
    "a private key that was cut": "-----BEGIN OPENSSH PRIVATE KEY-----\n{}",
}
AROUND = st.text(string.ascii_lowercase + " .,\n", max_size=40)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@settings(max_examples=30, deadline=None)
@given(secret=RANDOM, before=AROUND, after=AROUND)
def test_nothing_of_a_secret_is_left(shape: str, secret: str, before: str, after: str) -> None:
    """Whatever it is made of, and whatever stands around it."""
    assume(secret[4:-4] not in before and secret[4:-4] not in after)
    got = redact(f"{before}\n{shape.format(secret)}\n{after}")
    assert secret not in got
    assert secret[4:-4] not in got
    assert REDACTED in got
    assert got.startswith(before)


PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *(shape.replace("{}", "a1" * 12).replace("{{", "{") for shape in SHAPES.values()),
            *("password", "=", ": ", '"', "'", "\\", "\n", "Bearer ", "token", "://", ":", "@"),
            *(REDACTED, "[redacted", "redacted]", "sk-", "eyJ", ".", "-----", "cookie:"),
        ]
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_was_redacted_once_is_not_redacted_further(text: str) -> None:
    """So that a text may pass through it any number of times."""
    once = redact(text)
    assert once == redact(once)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgres://me:p@ss@db/x", "postgres://me:[redacted]@db/x"),
        ('{"api_key": "abc def", "n": 1}', '{"api_key": "[redacted]", "n": 1}'),
        ("PASSWORD=hunter2; rm", "PASSWORD=[redacted]; rm"),
        ("Authorization: Bearer abc", "Authorization: Bearer [redacted]"),
        (
            "see https://x.example/?token=abc&page=2",
            "see https://x.example/?token=[redacted]&page=2",
        ),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [redacted]\nHost: x"),
        (KEY_BLOCK.format("MII-E", "x") + " after", "[redacted] after"),
    ],
)
def test_what_a_secret_belongs_to_stays(text: str, left: str) -> None:
    """A reader sees that there was one, and whose."""
    assert left == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "Used 1200 input tokens: 900 cached.",
        "The secret of good bread is time, and a pass word is no password.",
        "https://x.example:8080/a@b and git@github.com:a/b.git",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "pk_customer_orders and task-force-of-many-people",
        "HTTP basic authentication is used.",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """What is only named is no secret."""
    assert text == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "password" * 12_000,
        "-" * 100_000,
        "eyJ." * 25_000,
        "http://" * 14_000,
        "password=" * 11_000,
        "sk-" * 30_000,
        "password='" * 10_000,
        "-----BEGIN PRIVATE KEY-----" * 3_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_long_text_takes_linear_time(text: str) -> None:
    """A text that looks like many beginnings of secrets."""
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 3

"""The tables of features that heartbit does not have yet: read and checked, used by nothing.

A file written for them keeps loading, with one warning. Only the schedules of [daemon] are in use.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, field_validator, model_validator

from heartbit.config.fields import (
    Amount,
    Count,
    Many,
    PostgresUrl,
    Seconds,
    Secret,
    Table,
    Text,
    Url,
    WebUrl,
    broken_rule,
    first_repeated,
)


def _clock_time(time: str) -> str:
    if not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", time):
        raise ValueError("must be a time of day like 08:30")
    return time


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be text that can be printed")
    return name


def _cron(expression: str) -> str:
    from heartbit.core.cron import check_cron  # croniter, which few files need

    check_cron(expression)
    return expression


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError("must be a time zone like Europe/Berlin that this machine knows") from None
    return name


ClockTime = Annotated[str, AfterValidator(_clock_time)]


class KafkaTable(Table):
    """Kafka as the way in."""

    brokers: Text
    """Comma-separated `host:port` list."""
    consumer_group: Text = "heartbit-daemon"
    """Group the consumers belong to."""
    commands_topic: Text = "heartbit.commands"
    """Topic that prompts and cancellations come from."""
    events_topic: Text = "heartbit.events"
    """Topic that events go to."""
    dead_letter_topic: Text = "heartbit.dead-letter"
    """Topic for messages that can't be read."""


class ScheduleTable(Table):
    """A prompt that is run again and again."""

    name: Annotated[Text, AfterValidator(_printable)]
    """Unique name of the schedule."""
    cron: Annotated[Text, AfterValidator(_cron)]
    """When: minute, hour, day of month, month, day of week, as in a crontab. With a second in front
    there are six fields; then days of the week go from 1 (Sunday) to 7, and both fields of a day
    must fit."""
    timezone: Annotated[Text, AfterValidator(_time_zone)] = "UTC"
    """By whose clocks: a name like `Europe/Berlin`."""
    task: Text
    """The prompt."""
    agent: Text | None = None
    """Who gets the prompt; by default whom the routing chooses."""
    enabled: bool = True
    """Whether it runs."""


class MetricsTable(Table):
    """Numbers for Prometheus."""

    enabled: bool = True
    """Whether `/metrics` answers."""


class WebSocketTable(Table):
    """Chats over a WebSocket."""

    enabled: bool = True
    """Whether `/ws` answers."""
    interaction_timeout_seconds: Count = 120
    """How long a question to the person stays open."""
    max_connections: Count = 100
    """The most connections at a time."""
    database_url: PostgresUrl | None = None
    """Where chats are kept; in memory when not given."""


class TokenExchangeTable(Table):
    """How a caller's token is exchanged for one an MCP server accepts."""

    exchange_url: WebUrl
    """The token endpoint."""
    client_id: Text
    """Who heartbit is to the endpoint."""
    client_secret: Secret
    """Its secret."""
    agent_token: Secret
    """The token that stands for the agent."""
    scopes: Many[Text] = ()
    """Scopes to ask for."""


class AuthTable(Table):
    """Who may call the API: anyone with one of the tokens, or with a valid JWT."""

    bearer_tokens: Many[Secret] = ()
    """Tokens that are accepted as they are."""
    jwks_url: WebUrl | None = None
    """Where the keys are published that sign JWTs."""
    issuer: Text | None = None
    """The issuer a JWT must name."""
    audience: Text | None = None
    """The audience a JWT must name."""
    user_id_claim: Text = "sub"
    """Claim that names the user."""
    tenant_id_claim: Text = "tid"
    """Claim that names the tenant."""
    roles_claim: Text = "roles"
    """Claim that lists the roles."""
    token_exchange: TokenExchangeTable | None = None
    """Tokens of the caller's own for MCP servers."""

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> Self:
        if not self.bearer_tokens and self.jwks_url is None:
            raise ValueError("lets nobody in; give it bearer_tokens or a jwks_url")
        return self


class ActiveHoursTable(Table):
    """The part of the day in which the pulse works, local time; may pass midnight."""

    start: ClockTime
    """First minute, `HH:MM`."""
    end: ClockTime
    """First minute that is no longer part of it, `HH:MM`."""


class PulseTable(Table):
    """Work that the daemon finds for itself on its todo list."""

    enabled: bool = False
    """Whether it looks."""
    interval_seconds: Count = 1800
    """Seconds from one look to the next."""
    active_hours: ActiveHoursTable | None = None
    """When it looks; always when not given."""
    prompt: Text | None = None
    """What it is told, in place of the built-in prompt."""
    idle_backoff_threshold: Count = 6
    """Looks without work before the interval doubles."""


class DaemonTable(Table):
    """The HTTP API and what starts runs by itself."""

    bind: Text = "127.0.0.1:3000"
    """Address and port of the API."""
    max_concurrent_tasks: Count = 4
    """The most runs at a time."""
    database_url: PostgresUrl | None = None
    """Where runs are kept; `[database]` is used when not given."""
    kafka: KafkaTable | None = None
    """Kafka as the way in."""
    schedules: Many[ScheduleTable] = ()
    """Prompts that are run again and again."""
    metrics: MetricsTable = MetricsTable.model_construct()
    """Numbers for Prometheus."""
    ws: WebSocketTable | None = None
    """Chats over a WebSocket."""
    auth: AuthTable | None = None
    """Who may call; anyone when not given."""
    heartbit_pulse: PulseTable | None = None
    """Work that the daemon finds for itself."""

    @field_validator("schedules")
    @classmethod
    def _names_differ(cls, schedules: tuple[ScheduleTable, ...]) -> tuple[ScheduleTable, ...]:
        at = first_repeated([schedule.name for schedule in schedules])
        if at is not None:
            raise broken_rule("is the name of another schedule too", at, "name")
        return schedules


class TelemetryTable(Table):
    """Traces for OpenTelemetry."""

    otlp_endpoint: Url
    """Where traces are sent."""
    service_name: Text = "heartbit"
    """What this service is called in them."""
    observability_mode: Literal["production", "analysis", "debug"] | None = None
    """How much a span says: names and durations, numbers too, or content too."""


class HeartbeatTable(Table):
    """An agent that works towards a goal, tick by tick."""

    goal: Text
    """What it works towards."""
    tick_interval_secs: Seconds = 300
    """Seconds from one tick to the next."""
    max_iterations_per_tick: Count = 5
    """The most turns in one tick."""
    workdir: Text = "/workspace"
    """Where its state is kept."""
    max_ticks: Amount = 0
    """Ticks after which it stops; 0 is never."""
    enable_tools: bool = True
    """Whether it acts on its plan, or only writes it."""


class RestateTable(Table):
    """Accepted for old files; `[celery]` and `[database]` do its work."""

    endpoint: Url | None = None
    """Not used."""

"""routing.yaml: who is told what, through which channel.

Secrets are named by file; Alertmanager reads them itself. Where Alertmanager 0.25 knows no file for
one (WeChat's), the text says so and the built file is written for its owner alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.base.config import Duration, Model

Duty = Literal["page", "ticket", "drill", "watchdog"]


class Webhook(Model):
    """Any HTTP receiver: a bridge, a dead-man's switch, a chat robot's adapter."""

    url: str = Field(pattern=r"^https?://", description="Where alerts are posted.")
    max_alerts: int = Field(default=50, ge=0, description="Most alerts in one message; 0 is all of them.")
    bearer_token_file: str = Field(default="", description="File with a bearer token.")
    username: str = Field(default="", description="Basic authentication.")
    password_file: str = Field(default="", description="File with the password.")


class Email(Model):
    """Mail by SMTP."""

    to: str = Field(min_length=3, description="Addresses, comma separated.")
    sender: str = Field(min_length=3, description="From.")
    smarthost: str = Field(pattern=r"^.+:\d+$", description="host:port of the mail server.")
    username: str = Field(default="", description="For SMTP authentication.")
    password_file: str = Field(default="", description="File with the password.")
    require_tls: bool = Field(default=True, description="Refuse a server without STARTTLS.")


class Slack(Model):
    """A Slack channel by incoming webhook."""

    api_url_file: str = Field(min_length=1, description="File with the webhook's address, which is a secret.")
    channel: str = Field(min_length=1, description="#channel")


class Pagerduty(Model):
    """PagerDuty, Events API v2."""

    routing_key_file: str = Field(min_length=1, description="File with the integration key.")


class Wechat(Model):
    """WeCom (Enterprise WeChat) application message. Alertmanager 0.25 takes its secret in the file only."""

    corp_id: str = Field(min_length=1)
    agent_id: str = Field(min_length=1)
    api_secret_file: str = Field(min_length=1, description="Read when the configuration is built.")
    to_party: str = Field(default="", description="Department ids, by |.")
    to_user: str = Field(default="", description="User ids, by |.")


KINDS = ("webhook", "email", "slack", "pagerduty", "wechat")


class Channel(Model):
    """One way to people: exactly one kind."""

    webhook: Webhook | None = None
    email: Email | None = None
    slack: Slack | None = None
    pagerduty: Pagerduty | None = None
    wechat: Wechat | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Channel:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"must be exactly one of {', '.join(KINDS)}, got {', '.join(given) or 'none'}")
        return self


class Pace(Model):
    """When a group of alerts is sent."""

    wait: Duration = Field(ge=0, description="group_wait: before the first message of a group.")
    interval: Duration = Field(gt=0, description="group_interval: before news of a group that was sent.")
    repeat: Duration = Field(gt=0, description="repeat_interval: before the same message again.")


class Paces(Model):
    """Drills go at the pace of pages: a drill's page takes the real road."""

    page: Pace = Pace(wait="5s", interval="30s", repeat="1h")
    ticket: Pace = Pace(wait="30s", interval="5m", repeat="12h")
    watchdog: Pace = Pace(wait=0, interval="30s", repeat="1m")


class Receivers(Model):
    """Channels by duty. A duty without a channel reaches nobody, and `build` says so."""

    page: tuple[str, ...] = Field(min_length=1, description="A human now.")
    ticket: tuple[str, ...] = Field(min_length=1, description="The next working day.")
    drill: tuple[str, ...] = Field(min_length=1, description="Everything provoked or simulated.")
    watchdog: tuple[str, ...] = Field(default=(), description="A dead-man's switch outside of this installation.")


class Team(Model):
    """A team that is told of its own alerts besides the receivers above."""

    match: dict[Literal["cluster", "node", "scope", "fault", "alertname", "engine", "job_id"], str] = Field(
        min_length=1, description="Labels with the value, or a regular expression after =~."
    )
    page: tuple[str, ...] = ()
    ticket: tuple[str, ...] = ()


class RoutingConfig(Model):
    """The whole of routing.yaml."""

    channels: dict[str, Channel] = Field(min_length=1)
    receivers: Receivers
    teams: dict[str, Team] = Field(default_factory=dict)
    pace: Paces = Paces()
    resolve_timeout: Duration = Field(default=300.0, gt=0, description="For alerts posted without an end.")

    @model_validator(mode="after")
    def _channels_exist(self) -> RoutingConfig:
        wanted = {
            **{f"receivers.{duty}": getattr(self.receivers, duty) for duty in Receivers.model_fields},
            **{f"teams.{name}.page": team.page for name, team in self.teams.items()},
            **{f"teams.{name}.ticket": team.ticket for name, team in self.teams.items()},
        }
        for where, names in wanted.items():
            if unknown := sorted(set(names) - set(self.channels)):
                raise ValueError(f"{where}: no channel {unknown}; there are {sorted(self.channels)}")
        return self


def sink(url: str) -> RoutingConfig:
    """Everything to one webhook sink, a path a duty, as fast as Alertmanager goes: the demo's routing."""
    duties: tuple[Duty, ...] = ("page", "ticket", "drill", "watchdog")
    fast = Pace(wait=0, interval="1s", repeat="1h")
    return RoutingConfig(
        channels={duty: Channel(webhook=Webhook(url=f"{url.rstrip('/')}/{duty}", max_alerts=0)) for duty in duties},
        receivers=Receivers(page=("page",), ticket=("ticket",), drill=("drill",), watchdog=("watchdog",)),
        pace=Paces(page=fast, ticket=fast, watchdog=Pace(wait=0, interval="5s", repeat="10s")),
    )

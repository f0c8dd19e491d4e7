"""Settings of the training collector."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from agent.base.collector import Settings
from agent.base.config import Duration, Model
from agent.base.trainlog import AUTO, FORMATS, trainer_state
from agent.training.run import SILENCE

STATE_FILE = "trainer_state"
TENSORBOARD = "tensorboard"
EVENTS_NAME = "tfevents"


class JobSettings(Model):
    job_id: str = Field(min_length=1, max_length=200, description="Name of the job, the label job_id.")
    log: str | None = Field(
        default=None,
        min_length=1,
        description="Log, trainer_state.json, TensorBoard file, or a pattern whose newest file counts; without it the "
        "job reports to the socket.",
    )
    format: str = Field(default=AUTO, description="Format of the log; auto recognises it.")
    timezone: str | None = Field(default=None, description="Zone of the log's clock; found out where not given.")
    steps_planned: int | None = Field(default=None, gt=0, description="Steps to be made, where the log names none.")
    planned: Duration | None = Field(default=None, gt=0, description="Planned duration of the run.")
    ended_after: Duration = Field(
        default=SILENCE, gt=0, description="Silence after which a run has ended, at least ten of its intervals."
    )
    gpus: int | None = Field(default=None, gt=0, description="GPUs of the whole job, for rates logged by GPU.")
    parameters: float | None = Field(default=None, gt=0, description="Active parameters of the model, for MFU.")
    peak_flops: float | None = Field(default=None, gt=0, description="Peak FLOP/s of one GPU, for MFU.")

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        known = [AUTO, STATE_FILE, TENSORBOARD, *sorted(FORMATS)]
        if name not in known:
            raise ValueError(f"must be one of {', '.join(known)}, got {name!r}")
        return name

    @field_validator("timezone")
    @classmethod
    def _zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (OSError, ValueError, LookupError):
                raise ValueError(f"must be a zone such as UTC or Europe/Berlin, got {name!r}") from None
        return name

    @property
    def kind(self) -> str:
        """The format, as far as the log's name tells it."""
        if self.format != AUTO or self.log is None:
            return self.format
        name = Path(self.log).name
        if name == trainer_state.FILE_NAME:
            return STATE_FILE
        return TENSORBOARD if EVENTS_NAME in name else AUTO


class TrainingSettings(Settings):
    jobs: list[JobSettings] = Field(default_factory=list, description="The training jobs whose progress is read here.")

    socket: Path | None = Field(
        default=None, description="Unix socket for reports by POST; training.sock in run_dir where not given."
    )
    socket_mode: str = Field(
        default="0666", pattern="^0[0-7]{3}$", description="Permissions of the socket: who may report."
    )

    @field_validator("jobs")
    @classmethod
    def _unique(cls, jobs: list[JobSettings]) -> list[JobSettings]:
        names = [job.job_id for job in jobs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"job_id must be unique, given twice: {', '.join(sorted(twice))}")
        return jobs

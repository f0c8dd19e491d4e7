"""Settings of the checkpoint collector and of the verification service: one section serves both."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from agent.base.collector import Settings
from agent.base.config import Duration, Model


class CheckpointJob(Model):
    job_id: str = Field(min_length=1, max_length=200, description="Name of the job, the label job_id.")
    directory: Path = Field(description="Folder in which the job keeps its checkpoints.")
    interval: Duration | None = Field(
        default=None, gt=0, description="Time between checkpoints; learned from those seen where not given."
    )
    backup: Path | None = Field(default=None, description="Folder that holds copies of the checkpoints.")
    verify: bool = Field(default=True, description="Have the verification service hash this job's checkpoints.")


class CheckpointSettings(Settings):
    period: Duration = Field(default=30.0, gt=0, description="Time between two runs.")
    jobs: list[CheckpointJob] = Field(default_factory=list, description="The jobs whose checkpoints are watched.")
    quiet: Duration = Field(
        default=300.0, gt=0, description="A checkpoint that is not finished is being written until this long unchanged."
    )
    recheck: Duration = Field(default=600.0, gt=0, description="Sizes of older checkpoints are looked at this often.")
    verify_bytes_per_second: float = Field(
        default=0.0, ge=0, description="Most bytes per second that the verification service reads; 0 for no limit."
    )

    @field_validator("jobs")
    @classmethod
    def _unique(cls, jobs: list[CheckpointJob]) -> list[CheckpointJob]:
        names = [job.job_id for job in jobs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"job_id must be unique, given twice: {', '.join(sorted(twice))}")
        return jobs

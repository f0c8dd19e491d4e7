"""Training progress and checkpoints; a job of the cluster is `job_id`, never Prometheus' `job`."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

JOB = ("job_id",)

RUNNING = Metric("gpuvigil_train_running", "gauge", "1 while the job makes steps, 0 once it has ended.", labels=JOB)
STEP = Metric("gpuvigil_train_step", "gauge", "Last step reported.", labels=JOB)
STEPS_PLANNED = Metric("gpuvigil_train_steps_planned", "gauge", "Steps the job is to make.", labels=JOB)
LOSS = Metric("gpuvigil_train_loss", "gauge", "Last finite training loss.", labels=JOB)
LOSS_NONFINITE = Metric("gpuvigil_train_loss_nonfinite", "counter", "Losses that were NaN or infinite.", labels=JOB)
GRAD_NORM = Metric("gpuvigil_train_grad_norm", "gauge", "Last gradient norm.", labels=JOB)
LEARNING_RATE = Metric("gpuvigil_train_learning_rate", "gauge", "Last learning rate.", labels=JOB)
STEP_SECONDS = Metric("gpuvigil_train_step_seconds", "gauge", "Time per step as last reported.", "seconds", JOB)
TOKENS_RATE = Metric("gpuvigil_train_tokens_per_second", "gauge", "Tokens per second as last reported.", labels=JOB)
LAST_STEP_TIME = Metric(
    "gpuvigil_train_last_step_timestamp_seconds", "gauge", "When the last step was reported.", "seconds", JOB
)
STARTED = Metric(
    "gpuvigil_train_started_timestamp_seconds", "gauge", "When the run's first step was reported.", "seconds", JOB
)
PLANNED_SECONDS = Metric(
    "gpuvigil_train_planned_seconds", "gauge", "Planned duration of the run, from configuration.", "seconds", JOB
)
RESTARTS = Metric("gpuvigil_train_restarts", "counter", "Times the step number went back.", labels=JOB)
UNPARSED = Metric("gpuvigil_train_log_lines_unparsed", "counter", "Progress lines that did not parse.", labels=JOB)

CHECKPOINT_COMPLETE_TIME = Metric(
    "gpuvigil_checkpoint_last_complete_timestamp_seconds",
    "gauge",
    "When the last complete checkpoint (manifest and sizes agree) was written.",
    "seconds",
    JOB,
)
CHECKPOINT_VERIFIED_TIME = Metric(
    "gpuvigil_checkpoint_last_verified_timestamp_seconds",
    "gauge",
    "When the last checkpoint whose hashes were verified was written.",
    "seconds",
    JOB,
)
CHECKPOINT_STEP = Metric(
    "gpuvigil_checkpoint_last_complete_step", "gauge", "Step of the last complete checkpoint.", labels=JOB
)
CHECKPOINT_BYTES = Metric(
    "gpuvigil_checkpoint_size_bytes", "gauge", "Size of the last complete checkpoint.", "bytes", JOB
)
CHECKPOINT_INTERVAL = Metric(
    "gpuvigil_checkpoint_interval_seconds",
    "gauge",
    "The job's own interval between checkpoints: configured, else the median of those seen.",
    "seconds",
    JOB,
)
CHECKPOINTS = Metric("gpuvigil_checkpoint_count", "gauge", "Complete checkpoints kept.", labels=JOB)
CHECKPOINTS_BAD = Metric(
    "gpuvigil_checkpoint_incomplete_count",
    "gauge",
    "Checkpoints that are neither complete nor being written.",
    labels=JOB,
)

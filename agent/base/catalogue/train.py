"""Training progress and checkpoints; a job of the cluster is `job_id`, never Prometheus' `job`."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

JOB = ("job_id",)

LOG_READABLE = Metric("gpuvigil_train_log_readable", "gauge", "1 if the job's log is there to read.", labels=JOB)
RUNNING = Metric(
    "gpuvigil_train_running",
    "gauge",
    "1 while the job makes steps or hangs; 0 once its log says so, all steps are made, or none came for long.",
    labels=JOB,
    vital=True,
)
STEP = Metric("gpuvigil_train_step", "gauge", "Last step reported.", labels=JOB)
STEPS_PLANNED = Metric("gpuvigil_train_steps_planned", "gauge", "Steps the job is to make.", labels=JOB)
LOSS = Metric("gpuvigil_train_loss", "gauge", "Last training loss; absent while it is not finite.", labels=JOB)
VALIDATION_LOSS = Metric("gpuvigil_train_validation_loss", "gauge", "Last validation loss.", labels=JOB)
LOSS_NONFINITE = Metric("gpuvigil_train_loss_nonfinite", "counter", "Losses that were NaN or infinite.", labels=JOB)
GRAD_NORM = Metric("gpuvigil_train_grad_norm", "gauge", "Last gradient norm.", labels=JOB)
LEARNING_RATE = Metric("gpuvigil_train_learning_rate", "gauge", "Last learning rate.", labels=JOB)
EPOCH = Metric("gpuvigil_train_epoch", "gauge", "Passes over the data so far, where logged.", labels=JOB)
CONSUMED_TOKENS = Metric(
    "gpuvigil_train_consumed_tokens", "gauge", "Tokens trained on so far, where known.", labels=JOB
)
STEP_SECONDS = Metric(
    "gpuvigil_train_step_seconds",
    "gauge",
    "Time per step as last reported, else between the last two reports; absent when no steps come.",
    "seconds",
    JOB,
)
RANK_STEP_SECONDS = Metric(
    "gpuvigil_train_rank_step_seconds",
    "gauge",
    "Time per step of each rank, where ranks log apart.",
    "seconds",
    (*JOB, "rank"),
)
TOKENS_RATE = Metric("gpuvigil_train_tokens_per_second", "gauge", "Tokens per second of the whole job.", labels=JOB)
MFU = Metric(
    "gpuvigil_train_mfu_ratio",
    "gauge",
    "Model-FLOPs utilisation: as logged, else from the configured model size and peak.",
    "ratio",
    JOB,
)
COMMUNICATION = Metric(
    "gpuvigil_train_communication_ratio",
    "gauge",
    "Share of a step in communication, waiting for pipeline peers included, where the job logs timers.",
    "ratio",
    JOB,
)
INTERVAL = Metric(
    "gpuvigil_train_report_interval_seconds",
    "gauge",
    "Usual time between two progress reports (median of the last 64): ten times this without a step is a stall.",
    "seconds",
    JOB,
)
LAST_STEP_TIME = Metric(
    "gpuvigil_train_last_step_timestamp_seconds", "gauge", "When the last step was reported.", "seconds", JOB
)
STARTED = Metric(
    "gpuvigil_train_started_timestamp_seconds",
    "gauge",
    "When the run's first step was reported.",
    "seconds",
    JOB,
    vital=True,
)
PLANNED_SECONDS = Metric(
    "gpuvigil_train_planned_seconds", "gauge", "Planned duration of the run, from configuration.", "seconds", JOB
)
RESTARTS = Metric(
    "gpuvigil_train_restarts",
    "counter",
    "Times the job went back to an earlier step, or said that it resumed.",
    labels=JOB,
)
UNPARSED = Metric(
    "gpuvigil_train_log_lines_unparsed",
    "counter",
    "Progress lines that did not parse, wholly or in one of their values.",
    labels=JOB,
)

CHECKPOINT_COMPLETE_TIME = Metric(
    "gpuvigil_checkpoint_last_complete_timestamp_seconds",
    "gauge",
    "When the last complete checkpoint (manifest and sizes agree) was written.",
    "seconds",
    JOB,
    vital=True,
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
CHECKPOINT_STEPS_SINCE = Metric(
    "gpuvigil_checkpoint_steps_since",
    "gauge",
    "Steps that a running job of this node has made since its last complete checkpoint.",
    labels=JOB,
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
    vital=True,
)
CHECKPOINTS = Metric("gpuvigil_checkpoint_complete", "gauge", "Complete checkpoints kept.", labels=JOB)
CHECKPOINTS_BAD = Metric(
    "gpuvigil_checkpoint_incomplete",
    "gauge",
    "Checkpoints that are neither complete nor being written.",
    labels=JOB,
)
CHECKPOINTS_CORRUPT = Metric(
    "gpuvigil_checkpoint_corrupt",
    "gauge",
    "Checkpoints kept whose sizes agree and whose hashes do not.",
    labels=JOB,
)
CHECKPOINT_WRITING = Metric(
    "gpuvigil_checkpoint_writing", "gauge", "1 while a checkpoint is being written or deleted.", labels=JOB
)
CHECKPOINT_WRITE_SECONDS = Metric(
    "gpuvigil_checkpoint_write_seconds",
    "gauge",
    "From the first finished file of the last complete checkpoint to its manifest: least time its writing took.",
    "seconds",
    JOB,
)
CHECKPOINT_VERIFY_FAILURES = Metric(
    "gpuvigil_checkpoint_verify_failures", "counter", "Checkpoints that verification found corrupt.", labels=JOB
)
CHECKPOINT_VERIFIED_BYTES = Metric(
    "gpuvigil_checkpoint_verified_bytes", "counter", "Bytes of checkpoints hashed.", "bytes", JOB
)
CHECKPOINT_RPO = Metric(
    "gpuvigil_checkpoint_rpo_seconds",
    "gauge",
    "Training time that a crash now would lose, by what one would go back to: complete, verified or backup; up to the "
    "last step where the job's log is read here.",
    "seconds",
    (*JOB, "basis"),
)
BACKUP_TIME = Metric(
    "gpuvigil_checkpoint_backup_timestamp_seconds",
    "gauge",
    "When the newest checkpoint that has a complete copy in the backup folder was written.",
    "seconds",
    JOB,
)
BACKUP_STEP = Metric(
    "gpuvigil_checkpoint_backup_step", "gauge", "Step of the newest complete copy in the backup folder.", labels=JOB
)

"""Progress of training jobs, read from what they write anyway: logs, state files, reports to a socket."""

"""GPUs as NVML sees them: a child process that alone loads the library, and its parent-side client."""

"""The central service: reads Prometheus on a schedule, decides, and serves what it decided."""

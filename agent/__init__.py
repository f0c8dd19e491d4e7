"""gpuvigil's node agent: observes one node and answers Prometheus from memory."""

__version__ = "0.1.0"

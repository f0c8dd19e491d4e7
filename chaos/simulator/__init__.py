"""A libnvidia-ml.so.1 of our own: simulated GPUs, or faults laid over real ones. Everything it shows is simulated."""

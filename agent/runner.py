"""Schedule, time-outs and freshness of the collectors."""

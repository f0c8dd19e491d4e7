"""Alert rules as declarations: expression, promtool cases and runbook stand together.

`groups/` holds one module a group; `registry` finds them, `render` writes what Prometheus reads.
"""

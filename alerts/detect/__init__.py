"""Models behind one interface: anomalies, training that will be late, resources that will run out.

Pure functions on arrays: nothing here reads a clock, a file or a network.
"""

"""What benches and end-to-end tests of the agent share: the real process on a simulated node, and its bad days."""

"""Process life of the agent."""

"""The agent's whole configuration, assembled from the collectors that exist."""

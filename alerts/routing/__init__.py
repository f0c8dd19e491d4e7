"""Alertmanager's configuration from a short YAML of channels, duties and teams."""

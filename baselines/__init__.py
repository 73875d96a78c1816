"""Baselines: other systems behind the same protocol as the cascade."""

"""Checks of a config: what it names exists, and what it sets can be meant."""

"""Cassettes in tests: what a test gets, and whose recordings are whose."""

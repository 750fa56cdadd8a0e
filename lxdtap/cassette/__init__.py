"""Recordings: what was seen, kept to be played again."""

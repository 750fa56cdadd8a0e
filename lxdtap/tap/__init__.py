"""Sockets and processes: what carries the bytes and lets clients in."""

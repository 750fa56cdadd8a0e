"""A recording as a daemon: it answers the client that was recorded, and others like it."""

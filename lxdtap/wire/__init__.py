"""From the bytes of a connection to transactions. Pure."""

"""What is done with what passed: the log, the spool and the cassette, in a process of their own."""

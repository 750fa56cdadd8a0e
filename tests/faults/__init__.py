"""What goes wrong around a tap, made to go wrong: nothing is lost, and nobody gets in.

Every test runs the real ``lxdtap`` between clients and daemons that count and log their bytes.
"""

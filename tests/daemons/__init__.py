"""lxdtap against real daemons: started for the tests, gone afterwards."""

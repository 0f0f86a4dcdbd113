"""Compare pair rules and objectives, with several seeds each and equal numbers of pairs."""

"""The benchmark behind SPEED.md: started by `tests/bench/run`, never by pytest."""

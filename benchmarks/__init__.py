"""Speed, measured: Apex with each database beside the least that the same libraries could do. `make bench` runs it."""

"""One file a claim; `make bench` (or `python -m benchmarks NAME…`) prints them all."""

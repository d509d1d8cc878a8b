"""The databases of the simulator: what they promise, without what they are. See ../README.md."""

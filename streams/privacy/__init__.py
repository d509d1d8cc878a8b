"""Personal data in events: sealed under keys that can be destroyed. See README.md."""

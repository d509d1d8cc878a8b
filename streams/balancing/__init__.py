"""Which media server serves whom: pure rules. No clock, no I/O; the gateway asks them, `fw balancer whatif` asks them again."""

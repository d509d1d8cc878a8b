"""The balancer: which node serves whom, for players, publishers and media servers. See docs/balancer.md."""

"""Kafka, PostgreSQL and the ClickHouse engine on one machine, from Python wheels and verified jars: no Docker."""

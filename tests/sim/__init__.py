"""The deterministic simulator: real code on an in-memory Kafka, in virtual time, with faults on demand."""

"""Faust agents that receive whole fetched batches of one partition, with offsets owned by the store. See README.md."""

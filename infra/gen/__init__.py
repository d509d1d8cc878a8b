"""`make gen`: what is written from the Avro files."""

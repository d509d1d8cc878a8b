"""History that outlives the log: closed ranges of every topic in object storage, and one reader over archive and log."""

"""Who may watch a stream: pure rules, for the edge that admits and for the gateway that explains."""

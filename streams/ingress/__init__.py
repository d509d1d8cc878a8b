"""The gRPC ingress: the door through which edge agents append facts to the log and learn what they may admit."""

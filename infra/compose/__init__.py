"""What `compose.yml` mounts and runs beside the platform's own processes."""

"""Runs everything on one machine: starts the parts in order, restarts what dies, stops all of it cleanly."""

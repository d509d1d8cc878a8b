"""Backup of the platform's truth, and its restoration."""

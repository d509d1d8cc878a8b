"""Certificates of nodes and ingresses, from the platform's own authority."""

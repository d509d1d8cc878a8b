"""Migrations of schema `platform`. Read models are rebuilt, never migrated."""

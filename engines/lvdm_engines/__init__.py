"""Bundles, manifests and sessions: the contract between export and runtime."""

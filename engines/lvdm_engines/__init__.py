"""The contract between export and runtime: bundles, their manifests, and sessions that run graphs.

Knows engine libraries only behind `backends`; nothing of torch, sampling or video.
"""

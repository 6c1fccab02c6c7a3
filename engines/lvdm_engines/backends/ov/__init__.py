"""OpenVINO: the backend `openvino`, for CPUs.

Knows openvino; nothing of other engines or of compiled plans.
"""

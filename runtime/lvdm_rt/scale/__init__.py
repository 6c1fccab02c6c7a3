"""More than one process: workers on a cluster, and work that is spread over them.

Knows pipelines, and Ray where it is asked for; nothing of flags, terminals or HTTP.
"""

"""More than one video or one process: lists of jobs, workers on a cluster, work that is spread.

An edge, as `commands` below it. Knows calls of pipelines, and Ray where it is asked for; nothing of
sampling or HTTP.
"""

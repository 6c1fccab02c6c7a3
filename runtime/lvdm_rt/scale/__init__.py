"""More than one video or one process: lists of jobs, workers on a cluster, work that is spread.

An edge, as `commands` below it. Knows pipelines, batches of clips, and Ray where it is asked for;
nothing of the mathematics or of HTTP.
"""

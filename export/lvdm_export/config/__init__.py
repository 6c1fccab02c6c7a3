"""What a model is, apart from its weights: the authors' YAML and our model.json.

Knows sizes and schedules, and writes our weights beside them; nothing of graphs or engines.
"""

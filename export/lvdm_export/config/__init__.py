"""What a model is, apart from its weights: the authors' YAML and our model.json.

Knows sizes and schedules; nothing of tensors, graphs or engines.
"""

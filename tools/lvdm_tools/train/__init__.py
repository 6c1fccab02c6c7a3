"""Training of autoencoders and denoisers (LVDM §3).

Lightning Fabric does the plumbing: device, precision, processes and gradient exchange come from
one object, while the loop, the checkpoint format and the random numbers stay ours. A full trainer
framework (or accelerate's stateful data loaders) would own the loop and the pickled checkpoints,
and both have to be ours for a resumed run to end with the very same weights. Knows networks and
clips; nothing of ONNX or of the runtime's long videos.
"""

"""How much can be asked for, whatever the bundle; imports nothing, so that flags may know it."""

MAX_FRAMES = 10_000_000  # two weeks at 8 frames per second
MAX_VIDEOS = 1_000_000
MAX_BATCH = 4096
MAX_SEED = 2**64 - 1

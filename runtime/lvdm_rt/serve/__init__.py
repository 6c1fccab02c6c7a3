"""`lvdm-rt serve`: videos over HTTP, made by one pipeline, kept in one folder.

    app ── service ─┬─ worker ── film, Pipeline   one thread makes batch after batch
    gate            ├─ store                      what is to be done and what is done (SQLite)
                    └─ broadcast ── live          what is being made, for whoever listens

Knows pipelines, files and HTTP; nothing of networks, of how a video is sampled, or of terminals.
"""

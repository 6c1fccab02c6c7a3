"""What videos show, in words: prompts along a video, and contexts of texts.

Knows the tokenizer and the text encoder of a bundle; nothing of clips, noise or command lines.
"""

"""Judgement: what Xids and readings mean for a GPU, and what to do about it."""

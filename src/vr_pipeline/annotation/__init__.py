"""Pairwise comparison of clips by people: a page in the browser, a journal of what they answered, and figures of it."""

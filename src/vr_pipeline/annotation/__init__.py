"""Comparison and grading of clips by people: a web page, a journal of answers, and figures."""

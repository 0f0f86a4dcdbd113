"""Interpretable rewards: linear weights over checklist answers, agreement with people, and training pairs.

Works on arrays and tables alone (numpy and pandas; scikit-learn and scipy inside the functions that need them).
"""

"""A synthetic world small enough to run the whole method on two CPU cores.

Clips of one moving shape, a checklist with exact ground truth, tiny models of the same classes as a real run, an
oracle and an auditor with features of their own, and simulated preferences. Everything it makes is labelled as
simulated.
"""

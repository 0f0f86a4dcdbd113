"""A synthetic world small enough to run the whole method on two CPU cores.

Clips of one moving shape, a checklist with exact ground truth, tiny models of the same classes as a real run, an
oracle that is independent of the judge, and simulated preferences. Everything it makes is labelled as simulated.
"""

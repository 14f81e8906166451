"""Proof: workers that are processes scale, are replaced when they die, and keep models from each other.

One module for each part; :mod:`..parts` runs them.
"""

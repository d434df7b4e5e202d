"""The jailed half of the engine: runs a student's cells and answers calls.

Nothing in this package is trusted once a student's code has run in its process; what it sends is data, which
the judge checks (`autograder.runner.frames`).  Only this package, `course_utils` and the libraries are mounted
in the jail.
"""

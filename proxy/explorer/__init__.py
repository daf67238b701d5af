"""What other thresholds, detectors and cascades would say of scores that are there already.

`candidate` reads what is wanted; `sweep` is the maths, from the calibration alone; `explorer` puts
live scores and the last evaluation through it; `merging` joins what several workers found.
"""

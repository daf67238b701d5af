"""Calibrate, demonstrate and evaluate: everything that runs beside the data plane."""

"""Whether the traffic still looks like what the detectors were calibrated on."""

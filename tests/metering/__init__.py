"""Metering under kill -9: a platform of real gateways, a real controller and real recorders.

`make test-metering` runs the long form, `test_exact.py` the short one.
"""

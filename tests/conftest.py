"""What holds for all tests."""

from contextlib import suppress

with suppress(ImportError):  # not installed everywhere that some of the tests run
    from hypothesis import HealthCheck, settings

    # An example that takes 200 ms, or a second to be made, only tells of a busy machine.
    settings.register_profile(
        "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")

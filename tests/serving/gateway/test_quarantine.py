"""Requests that engines died of."""

import pytest

from serving.gateway.quarantine import FOR_S, KEPT, Quarantine, QuarantinedError, fingerprint


def test_same_request_is_refused_for_a_while_and_others_are_not() -> None:
    quarantine = Quarantine()
    quarantine.check("demo", b"poison", 0.0)
    quarantine.add(fingerprint("demo", b"poison"), 0.0)
    quarantine.check("demo", b"bread", 1.0)
    quarantine.check("other", b"poison", 1.0)
    with pytest.raises(QuarantinedError) as caught:
        quarantine.check("demo", b"poison", FOR_S - 1)
    assert (caught.value.status, caught.value.code) == (500, "request_quarantined")
    quarantine.check("demo", b"poison", FOR_S)
    assert len(quarantine) == 0


def test_quarantine_is_bounded() -> None:
    quarantine = Quarantine()
    for number in range(KEPT + 10):
        quarantine.add(str(number), float(number))
    assert len(quarantine) == KEPT

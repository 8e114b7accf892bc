"""Which controller is asked, as standbys answer and leaders go."""

import pytest

from models.errors import BadRequestError
from serving.leaders import Controllers

A, B, POD = "http://a:8100", "http://b:8100", "http://10.0.0.7:8100"


def test_one_controller_is_always_the_one() -> None:
    controllers = Controllers(A + "/")
    assert controllers.url == A
    controllers.is_away(A)
    assert controllers.url == A
    assert not controllers.refused(A, None)
    assert not controllers.refused(A, "")
    assert controllers.url == A


def test_leader_that_a_standby_names_is_asked_at_once() -> None:
    controllers = Controllers(f"{A}, {B}")
    assert controllers.refused(A, B + "/")
    assert controllers.url == B


def test_next_address_is_asked_where_no_leader_is_known() -> None:
    controllers = Controllers(f"{A},{B}")
    assert controllers.refused(A, "")
    assert controllers.url == B
    assert controllers.refused(B, B)  # it names itself: it has just ceased to lead
    assert controllers.url == A


def test_leader_that_is_gone_is_left_for_the_addresses_of_the_settings() -> None:
    controllers = Controllers(A)
    controllers.refused(A, POD)
    controllers.is_away(POD)
    assert controllers.url == A


def test_absence_that_two_conversations_notice_counts_once() -> None:
    controllers = Controllers(f"{A},{B}")
    controllers.is_away(A)
    controllers.is_away(A)
    assert controllers.url == B


def test_conversation_that_lags_behind_another_follows_it() -> None:
    controllers = Controllers(f"{A},{B}")
    controllers.refused(A, POD)
    assert controllers.refused(A, B)
    assert controllers.url == POD


@pytest.mark.parametrize("urls", ["", " , "])
def test_setting_without_any_address_is_refused(urls: str) -> None:
    with pytest.raises(BadRequestError, match="names no controller"):
        Controllers(urls)

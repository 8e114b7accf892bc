"""The error hierarchy: what a tenant sees of each class."""

import inspect

from models import errors
from models.errors import ModelNotFoundError, PenstockError, QueueFullError

ALL = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PenstockError)
]


def test_every_error_is_drawn_in_the_tree_with_its_status() -> None:
    for cls in ALL:
        assert cls.__name__ in (errors.__doc__ or "")
        base_status = next(base.status for base in cls.__mro__ if "status" in vars(base))
        assert str(base_status) in (errors.__doc__ or "")


def test_body_has_openai_shape() -> None:
    error = ModelNotFoundError("there is no model 'x'", param="model", hint="penstock get models")
    assert error.body() == {
        "error": {
            "message": "there is no model 'x'",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_hint_stays_out_of_the_body() -> None:
    error = QueueFullError("later", hint="raise the secret limit", retry_after_s=2.0)
    assert "secret" not in str(error.body())
    assert error.status == 429


def test_exit_codes_are_never_success() -> None:
    assert all(1 <= cls.exit_code <= 125 for cls in ALL)

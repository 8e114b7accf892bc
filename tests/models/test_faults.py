"""Faults in words for the one who wrote the data."""

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from models.faults import Fault, faults_of


class Inner(BaseModel):
    count: int


class Outer(BaseModel):
    inner: list[Inner] = []
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> "Outer":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def faults(data: object) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    return faults_of(caught.value)


def test_fault_names_its_field_and_no_value() -> None:
    (fault,) = faults({"inner": [{"count": 1}, {"count": "secret"}]})
    assert fault.field == "inner.1.count"
    assert fault.named("file").startswith("inner.1.count: Input should be a valid integer")
    assert "secret" not in fault.reason


def test_fault_of_the_whole_is_told_in_the_validators_words() -> None:
    (fault,) = faults({"low": 2})
    assert fault == Fault("", "low is above high")
    assert (fault.named(), fault.named("file")) == ("low is above high", "file: low is above high")

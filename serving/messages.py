"""What all messages between the platform's parts have in common."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Base of all messages: immutable, and deaf to fields of a newer peer."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

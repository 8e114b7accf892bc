"""What a lane counts between two demand reports. Pure."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Tally:
    """Requests and their tokens; `ModelDemand` says what each count means."""

    arrivals: int = 0
    arrived_tokens: int = 0
    arrived_prompt_tokens: int = 0
    finished: int = 0
    finished_tokens: int = 0
    finished_output_tokens: int = 0
    missed: int = 0

    def arrived(self, prompt_tokens: int, output_tokens: int) -> None:
        """A request came, with what it is going to take as estimated."""
        self.arrivals += 1
        self.arrived_tokens += prompt_tokens + output_tokens
        self.arrived_prompt_tokens += prompt_tokens

    def answered(self, prompt_tokens: int, output_tokens: int, *, missed: bool) -> None:
        """A request has its answer, which took so much."""
        self.finished += 1
        self.finished_tokens += prompt_tokens + output_tokens
        self.finished_output_tokens += output_tokens
        self.missed += missed

    def add(self, other: "Tally") -> None:
        """Counts another tally in: one that was taken out and got lost."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

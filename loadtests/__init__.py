"""Black-box load tests for any OpenAI-compatible endpoint, and a fake engine to test at scale."""

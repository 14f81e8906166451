"""The side-by-side benchmark: every system under test in every scenario, and what came of it."""

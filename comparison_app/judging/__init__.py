"""A model as the judge of answers, and the measure of its own bias."""

"""Can a caller tell flagged requests from clean ones? A statistical test of silence."""

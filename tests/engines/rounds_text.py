"""The prompts of the rounds."""

LONG = (
    "Some say the world will end in fire, some say in ice. From what I have tasted of desire I hold with those who "
    "favor fire. But if it had to perish twice, I think I know enough of hate to say that for destruction ice is also "
    "great and would suffice."
)
PROMPTS = [LONG, "The capital of France is Paris. The capital of Germany is Berlin. The capital of", "Once upon a time"]

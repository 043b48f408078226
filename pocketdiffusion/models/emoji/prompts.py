"""The prompts of the sample sheet. They were fixed before the training ended."""

SHEET = (
    "red apple",
    "slice of pizza",
    "tiger face",
    "cactus",
    "blue heart",
    "sunflower",
    "penguin",
    "octopus",
    "ghost",
    "strawberry",
    "hamburger",
    "frog face",
    "butterfly",
    "doughnut",
    "robot face",
    "cherry blossom",
    "unicorn face",
    "birthday cake",
)

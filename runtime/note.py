"""What long work tells its caller while it runs: steps, which the next step replaces, and notes, which stay."""


class Note(str):
    """A line about the user's input that must stay on the screen, such as files of a checkpoint that are not read.

    Functions that take a callback for progress are told steps as plain text. A Note given to the same callback is a
    warning: the command line prints it on stderr also where it shows no progress.
    """
